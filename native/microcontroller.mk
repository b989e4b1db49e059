# examples/microcontroller with a small model: built here and for a Cortex-M, run, compared with what
# Python predicts. Neither may call for memory, files or threads. Included by Makefile.

small := $(BUILD)/microcontroller
board := ../examples/microcontroller
lean = -std=gnu11 -Wall -Wextra -Werror -ffunction-sections -fdata-sections -DTLM_NO_MALLOC \
	-Iinclude -I$(small)

MCU_CC ?= arm-none-eabi-gcc
MCU_SIZE ?= arm-none-eabi-size
MCU_QEMU ?= qemu-system-arm
MCU = -mthumb -mfloat-abi=hard -mfpu=auto -Os --specs=nano.specs --specs=nosys.specs
MCU_LINK = -nostartfiles -Wl,--gc-sections,--no-warnings -T $(board)/flash.ld -lm
MCU_PROCESSORS := cortex-m33 cortex-m7 cortex-m4
# The last takes memory in some C libraries.
hosted := malloc calloc realloc free fopen mmap pthread_create qsort

skip = echo "SKIPPED: $(1) is missing; install $(2)"

microcontroller-test:
	$(PYTHON) tests/make_microcontroller.py $(small)
	$(MAKE) CPPFLAGS=-DTLM_NO_MALLOC BUILD=$(small) $(small)/plain/libterselm.a
	@for call in $(hosted); do \
	    if nm -u $(small)/plain/libterselm.a | grep -qw "U $$call"; then \
	        echo "FAILED: the library calls $$call in spite of TLM_NO_MALLOC"; exit 1; fi; done
	$(CC) $(lean) $(board)/main.c $(small)/plain/libterselm.a -lm -o $(small)/model
	$(small)/model < $(small)/lines.txt | diff $(small)/expected.txt -
	@if command -v $(MCU_CC) > /dev/null; then $(MAKE) --no-print-directory mcu-builds; else \
	    $(call skip,$(MCU_CC),gcc-arm-none-eabi and libnewlib-arm-none-eabi); fi

.PHONY: mcu-builds
mcu-builds: $(MCU_PROCESSORS:%=$(small)/%.elf)
	$(MCU_SIZE) $^
	@if command -v $(MCU_QEMU) > /dev/null; then \
	    $(MCU_QEMU) -M mps2-an386 -nographic -monitor none -serial none \
	        -semihosting-config enable=on,target=native -kernel $(small)/cortex-m4.elf \
	        < $(small)/lines.txt | diff $(small)/expected.txt - && \
	    echo "qemu: a Cortex-M4 predicts the same"; else \
	    $(call skip,$(MCU_QEMU),qemu-system-arm); fi

$(small)/%.elf: $(sources) $(board)/main.c $(board)/startup.c $(board)/flash.ld $(small)/model.h
	$(MCU_CC) -mcpu=$* $(lean) $(MCU) $(filter %.c,$^) $(MCU_LINK) -o $@
