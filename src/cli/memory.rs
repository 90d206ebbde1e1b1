//! How the process gets its memory.

/// Buffers of at least this many bytes come from the kernel, each on its own, and go back
/// to it as soon as they are dropped.
#[cfg(target_env = "gnu")]
const FROM_THE_KERNEL: i32 = 1 << 20;

/// Keeps windows and other large buffers from staying behind, when they are dropped, in the
/// pieces of memory that the allocator of glibc has for each thread. It would begin to put
/// them there after the first of them was dropped.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back_large_buffers() {
    #[expect(unsafe_code, reason = "the allocator has no other door")]
    // SAFETY: mallopt changes a number in the allocator under its own lock.
    let done = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, FROM_THE_KERNEL) };
    if done == 0 {
        log::debug!("the allocator may keep large buffers");
    }
}

/// Other allocators do so by themselves.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back_large_buffers() {}
