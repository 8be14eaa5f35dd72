//! Running out of memory is the error 53200 of a statement, as it is for the server's own allocations. Rust would abort the
//! process, for which the server restarts all sessions.
//!
//! - Before the bytes of a large value are read, [`probe`] asks for as much as its copies may need.
//! - What fails nevertheless gets a reserve, and the statement fails when it next looks or ends.
//! - When that is used up too, the session ends with a FATAL error.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::CStr;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use pgrx::pg_sys;
use skill_core::{Code, Fault};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

struct Allocator;

/// Never touched, so it costs address space only.
const RESERVE: Layout = match Layout::from_size_align(1 << 20, 16) {
    Ok(layout) => layout,
    Err(_) => panic!(),
};
static KEPT: AtomicPtr<u8> = AtomicPtr::new(null_mut());
static EXHAUSTED: AtomicBool = AtomicBool::new(false);

/// Values up to this size are read without a probe.
const SMALL: usize = 64 << 10;
/// How many times the size of a value its copies may need together: as text, parsed, in another order, encoded.
const COPIES: usize = 8;

// SAFETY: the system's allocator; a failed allocation is tried again, or does not return.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        rescued(|| unsafe { System.alloc(layout) })
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        rescued(|| unsafe { System.alloc_zeroed(layout) })
    }

    #[inline]
    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's.
        rescued(|| unsafe { System.realloc(old, layout, size) })
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[inline]
fn rescued(allocate: impl Fn() -> *mut u8) -> *mut u8 {
    let memory = allocate();
    if memory.is_null() { rescue(allocate) } else { memory }
}

#[cold]
fn rescue(again: impl FnOnce() -> *mut u8) -> *mut u8 {
    EXHAUSTED.store(true, Ordering::Relaxed);
    let kept = KEPT.swap(null_mut(), Ordering::Relaxed);
    if !kept.is_null() {
        // SAFETY: allocated with this layout, and nobody else has the pointer.
        unsafe { System.dealloc(kept, RESERVE) };
        let memory = again();
        if !memory.is_null() {
            return memory;
        }
    }
    end_session()
}

/// Ends this process with a FATAL error: an ERROR would leave Rust's frames without their destructors.
#[allow(ffi_unwind_calls)] // FATAL does not return.
fn end_session() -> ! {
    unsafe extern "C-unwind" {
        fn errstart_cold(level: i32, domain: *const std::ffi::c_char) -> bool;
        fn errcode(code: i32) -> i32;
        fn errmsg(format: *const std::ffi::c_char, ...) -> i32;
        fn errfinish(file: *const std::ffi::c_char, line: i32, function: *const std::ffi::c_char);
    }
    const HERE: &CStr = c"skill_system";
    // SAFETY: the protocol of ereport(), with constants; the server has memory for its messages.
    unsafe {
        if errstart_cold(pg_sys::FATAL as i32, std::ptr::null()) {
            errcode(pgrx::PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY as i32);
            errmsg(c"out of memory".as_ptr());
            errfinish(HERE.as_ptr(), 0, HERE.as_ptr());
        }
        // errstart() is false where no FATAL can be reported.
        libc::exit(1)
    }
}

fn out_of_memory(detail: String) -> Fault {
    Fault::new(Code::OutOfMemory, "out of memory").detail(detail)
}

/// Fills the reserve; 53200 when memory ran out since the last call.
pub(crate) fn check() -> Result<(), Fault> {
    if KEPT.load(Ordering::Relaxed).is_null() {
        // SAFETY: the layout is not empty. It may fail: then no reserve is kept.
        KEPT.store(unsafe { System.alloc(RESERVE) }, Ordering::Relaxed);
    }
    if EXHAUSTED.load(Ordering::Relaxed) {
        EXHAUSTED.store(false, Ordering::Relaxed);
        return Err(out_of_memory(format!("Failed in {}().", super::error::current_function())));
    }
    Ok(())
}

/// Raises 53200 unless memory can be had for the copies of a value of so many bytes.
pub(crate) fn probe(bytes: usize) -> Result<(), Fault> {
    if bytes <= SMALL {
        return Ok(());
    }
    let size = bytes.saturating_mul(COPIES);
    // SAFETY: a new mapping, given back at once. Not by the allocator, whose thresholds a large allocation would change.
    unsafe {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let mapping = libc::mmap(null_mut(), size, protection, flags, -1, 0);
        if mapping == libc::MAP_FAILED {
            return Err(out_of_memory(format!(
                "Failed on request of size {size} in {}().",
                super::error::current_function()
            )));
        }
        libc::munmap(mapping, size);
    }
    Ok(())
}
