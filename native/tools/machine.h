/* What tlm-bench asks the machine: its clock, processor, memory and how fast it reads. */
#ifndef TLM_TOOLS_MACHINE_H
#define TLM_TOOLS_MACHINE_H

#include <stddef.h>
#include <stdint.h>

/* Seconds of a clock that does not jump, where there is one. */
double now(void);
/* The name of the processor, in `name`; empty where the machine does not say. */
void cpu_name(char *name, size_t size);
/* The operating system and the kind of processor that this program was built for. */
const char *system_name(void);
const char *architecture_name(void);
/* Bytes that this program held in memory at most; 0 where the machine does not say. */
uint64_t peak_resident(void);
/* Bytes a second that `threads` threads together read of `bytes` bytes, again and again: the
   median of several runs. 0 if there is no memory. */
double read_bandwidth(size_t bytes, uint32_t threads);

#endif
