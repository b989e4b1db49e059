/* What runs before main on a Cortex-M with 2 MB of flash at 0 and 256 kB of RAM, as flash.ld says.
 * A real board comes with its own. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

extern unsigned char ld_data_in_flash[], ld_data[], ld_data_end[], ld_bss[], ld_bss_end[];
extern unsigned char ld_stack_top[];
extern void initialise_monitor_handles(void); /* of semihosting: read() and write() */
int main(void);
void reset(void);
void fault(void);

void reset(void)
{
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* floating point, before anything uses it */
    __asm__ volatile("dsb\n\tisb" ::: "memory");
    memcpy(ld_data, ld_data_in_flash, (size_t)(ld_data_end - ld_data));
    memset(ld_bss, 0, (size_t)(ld_bss_end - ld_bss));
    initialise_monitor_handles();
    _Exit(main());
}

void fault(void)
{
    _Exit(100);
}

typedef void handler(void);
__attribute__((section(".vectors"), used)) static handler *const vectors[16] = {
    (handler *)(uintptr_t)ld_stack_top, reset, fault, fault, fault, fault, fault,
};
