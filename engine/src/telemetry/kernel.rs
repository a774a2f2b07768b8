//! What the kernel side's counters count, in words. The programs carry no words, so they are here.

use agentsight_abi::{DropCause, Total};

/// What a cause has cost.
pub(super) const fn cause(cause: DropCause) -> &'static str {
    match cause {
        DropCause::RingFull => "A record: the ring had no room, the application was faster than the drain.",
        DropCause::RingMissing => "A record: its ring does not exist, for a CPU that came online later.",
        DropCause::UserFault => "A record: the application's memory could not be read without a page fault.",
        DropCause::CallBudget => "The middle of a call that transferred more than is kept of one.",
        DropCause::PressureMiddle => "The middle of a call: the ring was so full that only head and tail were kept.",
        DropCause::PressureConnection => "A call on a connection outside of the sample: the ring was nearly full.",
        DropCause::CallMapFull => "A call: too many were under way at once.",
        DropCause::ConnMapFull => "A connection: the map of connections refused it.",
        DropCause::FilterFull => "A child process that was to be followed: the filter of processes was full.",
        DropCause::SocketUnseen => {
            "Bytes that went over a captured socket by sendfile, splice or io_uring, which show no buffer."
        }
        DropCause::Unpaired => "A record of rustls whose connection could not be told.",
        DropCause::Undecrypted => {
            "Bytes of a record that rustls was given to decrypt and left where they can't be found, or refused."
        }
        DropCause::ConnBusy => "A call on a connection that another thread's program was busy with for too long.",
    }
}

/// Name and words of a total.
pub(super) const fn total(total: Total) -> (&'static str, &'static str) {
    match total {
        Total::Records => ("kernel_records", "Records that the kernel side handed over."),
        Total::ConnsOpened => ("kernel_connections_opened", "Connections that the kernel side remembered anew."),
        Total::ConnsClosed => {
            ("kernel_connections_closed", "Connections that the kernel side forgot because they ended.")
        }
        Total::ConnsIgnored => ("kernel_connections_ignored", "Connections whose first bytes can't be HTTP."),
    }
}
