# From the first instruction to `start` in boot.rs, and from an interrupt to its function in interrupts.rs.
#
# The machine enters in 32-bit mode, without paging, with the address of its start info in ebx: the PVH boot protocol,
# "x86/HVM direct boot ABI" of the Xen project. Its note names the entry.

    .section .note.pvh, "a", @note
    .balign 4
    .long 4                             # bytes of the name
    .long 8                             # bytes of the entry's address
    .long 18                            # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry

    .section .text.boot, "ax"
    .code32
    .global pvh_entry
pvh_entry:
    cli
    cld
    movl $stack_top, %esp
    movl %ebx, %edi                     # start's argument

    # The first GiB, mapped onto itself in pages of 2 MiB; the first of them in pages of 4 KiB, without that below the
    # stack.
    movl $pdpt + 3, pml4                # present, writable
    movl $pd + 3, pdpt
    movl $0x83, %eax                    # present, writable, 2 MiB
    xorl %ecx, %ecx
1:  movl %eax, pd(, %ecx, 8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $512, %ecx
    jne 1b
    movl $pt + 3, pd
    movl $3, %eax                       # present, writable
    xorl %ecx, %ecx
2:  movl %eax, pt(, %ecx, 8)
    addl $0x1000, %eax
    incl %ecx
    cmpl $512, %ecx
    jne 2b
    movl $stack_guard, %eax
    shrl $12, %eax
    movl $0, pt(, %eax, 8)

    movl $pml4, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $0x20, %eax                     # PAE
    movl %eax, %cr4
    movl $0xc0000080, %ecx              # EFER
    rdmsr
    orl $0x100, %eax                    # LME
    wrmsr
    movl %cr0, %eax
    orl $0x80000001, %eax               # PG, PE
    movl %eax, %cr0
    lgdt gdt_pointer
    ljmp $8, $long_mode

    .code64
long_mode:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %edi, %edi                     # the upper halves are not defined after the switch
    movl %esp, %esp
    movl $task, %eax                    # below 16 MiB, so its address has 24 bits, which lie together
    shlq $16, %rax
    orq %rax, gdt_task
    movl $24, %eax
    ltr %ax
    call start
    ud2

    # What a function may change is saved around it; with the five words that the processor pushes, the nine here keep
    # the stack aligned to 16 bytes at the call. The target has no vector registers.
    .macro interrupt entry, function
    .global \entry
\entry:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    cld
    call \function
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rdx
    popq %rcx
    popq %rax
    iretq
    .endm

    interrupt timer_entry, timer_interrupt
    interrupt serial_entry, serial_interrupt

    # Nothing returns from an exception, so nothing is saved; some push a word more, so the stack is aligned anew. It is
    # one for exceptions alone: what is wrong may be the other one.
    .global exception_entry
exception_entry:
    andq $-16, %rsp
    call exception
    ud2

    .section .data.boot, "aw"
    .balign 8
gdt:
    .quad 0
    .quad 0x00209a0000000000            # code, 64-bit
    .quad 0x0000920000000000            # data
gdt_task:
    .quad 0x0000890000000067            # task state, to which its address is added
    .quad 0
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt

    # The task state, of which the processor uses the first stack for interrupts, and nothing else.
task:
    .skip 36
    .quad exception_stack_top
    .skip 58
    .word 104                           # no map of ports behind it

    .section .bss.boot, "aw", @nobits
    .balign 4096
pml4:
    .skip 4096
pdpt:
    .skip 4096
pd: .skip 4096
pt: .skip 4096
    .global stack_guard
stack_guard:                            # has no page
    .skip 4096
    .skip 65536
stack_top:
    .skip 4096                          # if this one overflows, then into the stack that nobody needs any more
exception_stack_top:
