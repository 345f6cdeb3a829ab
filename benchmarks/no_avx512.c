/* Hides AVX-512, AVX-VNNI and AMX from a program, to measure what it does on a processor without them.

       gcc -O2 -shared -fPIC -o no_avx512.so benchmarks/no_avx512.c -ldl
       LD_PRELOAD=$PWD/no_avx512.so reneg demo

   Linux lets CPUID fault (arch_prctl(2), needs cpuid_fault in /proc/cpuinfo). The handler answers with these bits cleared, so
   every library takes its code for AVX2. Programs that it starts inherit it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define SET_CPUID 0x1012 /* ARCH_SET_CPUID: 0 lets CPUID fault, 1 does not */

typedef void (*handler_of)(int);
static struct sigaction other; /* the handler of SIGSEGV that the program itself has set */

static int set_action(int number, const struct sigaction *now, struct sigaction *before) {
    static int (*real)(int, const struct sigaction *, struct sigaction *);
    if (!real) real = dlsym(RTLD_NEXT, "sigaction");
    return real(number, now, before);
}

static void answer_cpuid(ucontext_t *context) {
    greg_t *registers = context->uc_mcontext.gregs;
    uint32_t leaf = registers[REG_RAX], part = registers[REG_RCX], a = leaf, b, c = part, d;
    syscall(SYS_arch_prctl, SET_CPUID, 1);
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    syscall(SYS_arch_prctl, SET_CPUID, 0);
    if (leaf == 7 && part == 0) {
        b &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31);
        c &= ~(1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14);
        d &= ~(1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25);
    } else if (leaf == 7 && part == 1) {
        a &= ~(1u << 4 | 1u << 5 | 1u << 21 | 1u << 23);
        d = 0;
    }
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

static void on_fault(int number, siginfo_t *info, void *context) {
    const uint8_t *at = (const uint8_t *)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    if (info->si_code == SI_KERNEL && at[0] == 0x0f && at[1] == 0xa2)
        answer_cpuid(context);
    else if ((other.sa_flags & SA_SIGINFO) && other.sa_sigaction)
        other.sa_sigaction(number, info, context);
    else if (other.sa_handler != SIG_DFL && other.sa_handler != SIG_IGN)
        other.sa_handler(number);
    else
        signal(SIGSEGV, SIG_DFL); /* the same instruction faults again and ends the program */
}

static void install(void) {
    struct sigaction mine = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    set_action(SIGSEGV, &mine, NULL);
}

int sigaction(int number, const struct sigaction *now, struct sigaction *before) {
    if (number != SIGSEGV) return set_action(number, now, before);
    if (before) *before = other;
    if (now) {
        other = *now;
        install();
    }
    return 0;
}

handler_of signal(int number, handler_of handler) {
    struct sigaction now = {.sa_handler = handler, .sa_flags = SA_RESTART}, before;
    int failed = number == SIGSEGV && handler == SIG_DFL ? set_action(number, &now, &before) : sigaction(number, &now, &before);
    return failed ? SIG_ERR : before.sa_handler;
}

__attribute__((constructor)) static void start(void) {
    install();
    syscall(SYS_arch_prctl, SET_CPUID, 0);
}
