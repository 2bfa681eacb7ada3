//! The C library's allocator.

/// Has all threads of the process share one arena. By itself the C library gives each thread one of its own, and what a
/// thread that made something large has freed is not there for the others: an agent's memory would be a quarter more.
///
/// Does nothing with another C library. To be called before there are threads.
pub(crate) fn share_one() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "libc has no safe way to say it")]
        // SAFETY: `mallopt` takes two numbers and touches nothing of ours; there is no other thread yet.
        let taken = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
        // Refused: more memory is used, and nothing else.
        let _ = taken;
    }
}
