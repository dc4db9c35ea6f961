//! The longest allocation of a piece of work.

#![expect(unsafe_code, reason = "an allocator is unsafe by its trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Of each thread: tests run side by side.
    static LONGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(size: usize) {
    LONGEST.set(LONGEST.get().max(size));
}

/// The system's allocator, which notes how long allocations are.
struct Noting;

#[global_allocator]
static ALLOCATOR: Noting = Noting;

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps the promises of this call, which are those of the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; the pointer came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// What work gives, and the longest allocation of this thread meanwhile.
pub(crate) fn longest_during<T>(work: impl FnOnce() -> T) -> (T, usize) {
    LONGEST.set(0);
    let result = work();
    (result, LONGEST.get())
}
