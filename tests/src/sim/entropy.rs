//! The operating system's randomness, seeded for a thread that asks for it.
//!
//! Keys, nonces, connection ids and the order of hash maps come from the operating system, and so would differ from
//! run to run. The functions through which Rust programs ask for randomness are defined here once more, and the
//! linker prefers these: `getrandom` and `getentropy` of the C library, which the standard library and the crate
//! getrandom use, and its `syscall`, through which ring asks. A thread without a seed gets what it would get without
//! them. The technique is that of deterministic simulators such as madsim.
#![expect(unsafe_code, reason = "functions of the C library have the types of C")]

use std::arch::asm;
use std::cell::Cell;

thread_local! {
    /// The state of this thread's generator, if it has a seed.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on all randomness in this thread comes from `seed`.
///
/// What the thread has drawn before lives on, such as the keys of its hash maps: seed a thread as the first thing.
pub fn seed(seed: u64) {
    STATE.set(Some(seed));
}

/// The next number of this thread's generator (splitmix64), if it has a seed.
fn next() -> Option<u64> {
    let state = STATE.get()?.wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(Some(state));
    let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    Some(mixed ^ mixed >> 31)
}

/// Fills a buffer if the thread has a seed; whether it did.
///
/// # Safety
/// `buffer` must be valid for writes of `len` bytes.
unsafe fn fill(buffer: *mut u8, len: usize) -> bool {
    if STATE.get().is_none() {
        return false;
    }
    // SAFETY: so it is promised by the caller.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer, len) };
    for chunk in buffer.chunks_mut(8) {
        let random = next().unwrap_or_default().to_le_bytes();
        chunk.copy_from_slice(&random[..chunk.len()]);
    }
    true
}

/// Asks the kernel.
///
/// # Safety
/// As the system call.
unsafe fn kernel(number: i64, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let answer: isize;
    // SAFETY: the calling convention of Linux on x86-64; the rest is promised by the caller.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    answer
}

/// The kernel's answer as the C library gives it.
fn answer(answer: isize) -> isize {
    if answer >= 0 {
        return answer;
    }
    // SAFETY: it is valid in every thread.
    unsafe { *libc::__errno_location() = i32::try_from(-answer).unwrap_or(libc::EIO) };
    -1
}

/// As in the C library.
///
/// # Safety
/// As in the C library.
// SAFETY: the name and the type are those of the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, len: usize, flags: u32) -> isize {
    // SAFETY: so it is promised by the caller.
    unsafe {
        if fill(buffer, len) {
            return len.cast_signed();
        }
        let arguments = [buffer as usize, len, flags as usize, 0, 0, 0];
        answer(kernel(libc::SYS_getrandom, arguments))
    }
}

/// As in the C library.
///
/// # Safety
/// As in the C library.
// SAFETY: the name and the type are those of the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getentropy(buffer: *mut u8, len: usize) -> i32 {
    // SAFETY: so it is promised by the caller.
    let got = unsafe { getrandom(buffer, len, 0) };
    if got == len.cast_signed() { 0 } else { -1 }
}

/// As in the C library.
///
/// # Safety
/// As in the C library.
// SAFETY: the name is that of the C library. Its arguments are variable in number; six of them are all that there can be,
// and what was not given is never looked at by the kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: i64,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> i64 {
    // SAFETY: so it is promised by the caller.
    unsafe {
        if number == libc::SYS_getrandom && fill(a as *mut u8, b) {
            return i64::try_from(b).unwrap_or(i64::MAX);
        }
        answer(kernel(number, [a, b, c, d, e, f])) as i64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use ring::rand::{SecureRandom, SystemRandom};

    use super::*;

    /// What a new thread with this seed draws, in each way in which Rust programs draw.
    fn drawn(with: Option<u64>) -> (Vec<u32>, [u8; 32], u64) {
        let draw = move || {
            if let Some(with) = with {
                seed(with);
            }
            let order = (0..64).collect::<HashSet<u32>>().into_iter().collect();
            let mut bytes = [0; 32];
            SystemRandom::new().fill(&mut bytes).expect("random bytes");
            (order, bytes, getrandom::u64().expect("random bytes"))
        };
        thread::spawn(draw).join().expect("no panic")
    }

    #[test]
    fn a_seeded_thread_repeats_itself() {
        assert_eq!(drawn(Some(7)), drawn(Some(7)));
    }

    #[test]
    fn other_seeds_and_no_seed_draw_something_else_in_each_way() {
        for (one, two) in [(drawn(Some(7)), drawn(Some(8))), (drawn(None), drawn(None))] {
            assert_ne!(one.0, two.0);
            assert_ne!(one.1, two.1);
            assert_ne!(one.2, two.2);
        }
    }
}
