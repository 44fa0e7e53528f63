//! Giving memory back: a shim is idle for most of its life, and there is one per container.

/// Returns free heap pages to the kernel after a burst.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "malloc_trim has no safe wrapper")]
    // SAFETY: a call into the allocator, without arguments that could be wrong.
    unsafe {
        libc::malloc_trim(0);
    }
}
