/*
 * The smallest guest that proves a virtual machine runs: a 32-bit kernel that the machine starts by its PVH note, without a boot loader.
 * It says so on the serial port, answers each byte that comes in by its successor, and switches the machine off at a 'q'.
 */
    .code32
    .section .note.pvh, "a", @note
    .long 4, 4, 18
    .asciz "Xen"
    .long start

    .section .text
    .globl start
start:
    mov $hello, %esi
1:  lodsb
    test %al, %al
    jz next
    mov $0x3f8, %dx
    outb %al, %dx
    jmp 1b

next:
    pause
    mov $0x3fd, %dx             /* line status: bit 0 is a byte to read */
    inb %dx, %al
    test $1, %al
    jz next
    mov $0x3f8, %dx
    inb %dx, %al
    cmp $'q', %al
    je power_off
    inc %al
    outb %al, %dx
    jmp next

power_off:
    mov $16, %eax               /* qemu's isa-debug-exit device: the monitor ends with status 2 * 16 + 1 */
    outl %eax, $0xf4
    jmp next

hello: .asciz "the guest runs\n"
