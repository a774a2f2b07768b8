//! Calls of Go's `crypto/tls` in flight, and where their buffers are by the time they return.
//!
//! A goroutine begins a call on one thread and may end it on another, and its stack is copied to
//! another place when it has to grow. What stays is the goroutine itself and how far a frame is from
//! the stack's upper end.

/// The arguments of a call in flight.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct GoCall {
    /// Address of the `tls.Conn`.
    pub conn: u64,
    /// Address of the slice's bytes.
    pub buffer: u64,
    /// Length of the slice.
    pub len: u64,
    /// When the call began (CLOCK_MONOTONIC).
    pub entered_ns: u64,
    /// Upper end of the goroutine's stack when the call began.
    pub stack_end: u64,
    /// Stack pointer when the call began.
    pub stack: u64,
    /// What others have done to the connection of this write: one of [`taken`].
    pub taken: u64,
}

impl GoCall {
    /// How far the call's frame is from the upper end of its stack, which is the same on return.
    #[inline(always)]
    pub fn depth(stack_end: u64, stack: u64) -> u32 {
        stack_end.wrapping_sub(stack) as u32
    }

    /// Where the buffer is when the stack pointer, back where it was in the frame, is `stack`. A
    /// buffer on the stack goes along with it; the caller's frames are above the call's own.
    #[inline(always)]
    pub fn buffer_at(&self, stack: u64) -> u64 {
        let on_stack = self.buffer > self.stack && self.buffer < self.stack_end;
        if on_stack { self.buffer.wrapping_add(stack.wrapping_sub(self.stack)) } else { self.buffer }
    }
}

/// What a write under way and another call on its connection let each other know.
pub mod taken {
    /// Nothing yet.
    pub const NOT: u64 = 0;
    /// A read has copied the bytes: the write may return, and its caller use the buffer again.
    pub const COPIED: u64 = 1;
    /// The write has returned before they were copied: they may have been anybody's.
    pub const LATE: u64 = 2;
    /// The connection was closed: the write that returns tells its end.
    pub const CLOSED: u64 = 3;
}

/// The texts of Go's errors that tell that the peer has ended the connection.
pub mod ended {
    /// `io.EOF`: the peer's `close_notify`, or the end of its bytes between two records.
    pub const EOF: &[u8; 3] = b"EOF";
    /// `io.ErrUnexpectedEOF`: the end of its bytes within a record.
    pub const UNEXPECTED_EOF: &[u8; 14] = b"unexpected EOF";
    /// `net.OpError.Op` of an alert that the peer sent.
    pub const ALERT: &[u8; 12] = b"remote error";
    /// `net.OpError.Op` and `os.SyscallError.Syscall` of a read that the system refused.
    pub const READ: &[u8; 4] = b"read";
    /// Where `net.OpError` has the value of its `Err`: behind two strings, two interfaces and the type.
    pub const OP_ERROR_ERR: u64 = 4 * 16 + 8;
    /// Where `os.SyscallError` has the value of its `Err`.
    pub const SYSCALL_ERROR_ERR: u64 = 16 + 8;
    /// The peer has reset the connection, errno(3).
    pub const ECONNRESET: u64 = 104;
}

/// `g.stack.hi` in a goroutine's descriptor: `stack` is its first field, and `lo` that field's first.
pub const STACK_END_OFFSET: u64 = 8;

const _: () = assert!(size_of::<GoCall>() == 56);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_on_the_stack_move_with_it() {
        let call = |buffer| GoCall {
            conn: 1,
            buffer,
            len: 10,
            entered_ns: 0,
            stack_end: 0xc000_0800,
            stack: 0xc000_0700,
            taken: 0,
        };
        for (buffer, stack, expected) in [
            // On the heap, below and above the stack.
            (0xb000_0000, 0xc000_0700, 0xb000_0000),
            (0xd000_0000, 0xc100_0700, 0xd000_0000),
            (0xc000_0800, 0xc100_0700, 0xc000_0800),
            // In a caller's frame, not moved, moved up, moved down.
            (0xc000_0780, 0xc000_0700, 0xc000_0780),
            (0xc000_0780, 0xc100_0f00, 0xc100_0f80),
            (0xc000_0780, 0xa000_0700, 0xa000_0780),
        ] {
            assert_eq!(call(buffer).buffer_at(stack), expected, "{buffer:x} at {stack:x}");
        }
        assert_eq!(GoCall::depth(0xc000_0800, 0xc000_0700), GoCall::depth(0xc100_1000, 0xc100_0f00));
    }
}
