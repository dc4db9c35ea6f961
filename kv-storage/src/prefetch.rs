//! Asks the processor for a cache line before it is needed.
//!
//! A plain load would do the same, but the locked instructions that guards and locks are made of wait for all
//! loads in front of them. They do not wait for this.

#![expect(
    unsafe_code,
    reason = "the instruction takes a pointer; it is confined to this module"
)]

/// Begins to load the line in which a value begins. Does nothing where the processor has no such instruction.
#[inline]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: The instruction changes nothing that a program can see, whatever the address is; and this one is
        // that of a live value.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
