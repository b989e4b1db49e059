/* What a board brings: the start of a Cortex-M whose memory is as flash.ld says, and read() and
 * write(), here by semihosting, which qemu and debuggers have. There is no heap. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { SYS_OPEN = 0x01, SYS_WRITE = 0x05, SYS_READ = 0x06, SYS_EXIT_EXTENDED = 0x20 };
enum { FAULT = 100 };

extern unsigned char ld_data_in_flash[], ld_data[], ld_data_end[], ld_bss[], ld_bss_end[];
extern unsigned char ld_stack_top[];
int main(void);
void reset(void);
void fault(void);
int _read(int file, char *text, int size);
int _write(int file, const char *text, int size);
void *_sbrk(ptrdiff_t more);

static int ask_host(int operation, const uint32_t *arguments)
{
    register int r0 __asm__("r0") = operation;
    register const uint32_t *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void leave(int code)
{
    const uint32_t arguments[] = {0x20026, (uint32_t)code}; /* the application exits */
    for (;;)
        ask_host(SYS_EXIT_EXTENDED, arguments);
}

/* A handle of the host's console, to read (mode 0) or to write (mode 4). */
static uint32_t open_console(uint32_t mode)
{
    const uint32_t arguments[] = {(uint32_t)":tt", mode, 3};
    return (uint32_t)ask_host(SYS_OPEN, arguments);
}

static uint32_t console_in, console_out;

/* The host returns how many bytes it has not read or written. */
int _read(int file, char *text, int size)
{
    const uint32_t arguments[] = {console_in, (uint32_t)text, (uint32_t)size};
    (void)file;
    return size - ask_host(SYS_READ, arguments);
}

int _write(int file, const char *text, int size)
{
    const uint32_t arguments[] = {console_out, (uint32_t)text, (uint32_t)size};
    (void)file;
    return size - ask_host(SYS_WRITE, arguments);
}

void *_sbrk(ptrdiff_t more)
{
    (void)more;
    leave(FAULT); /* something called malloc */
    return NULL;
}

void reset(void)
{
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* floating point, before anything uses it */
    __asm__ volatile("dsb\n\tisb" ::: "memory");
    memcpy(ld_data, ld_data_in_flash, (size_t)(ld_data_end - ld_data));
    memset(ld_bss, 0, (size_t)(ld_bss_end - ld_bss));
    console_in = open_console(0);
    console_out = open_console(4);
    leave(main());
}

void fault(void)
{
    leave(FAULT);
}

typedef void handler(void);
__attribute__((section(".vectors"), used)) static handler *const vectors[16] = {
    (handler *)(uintptr_t)ld_stack_top, reset, fault, fault, fault, fault, fault,
};
