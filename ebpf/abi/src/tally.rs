//! What the kernel side counts: every loss by its cause, and totals.

/// Declares an enum of counters with their names, so that nothing is counted without a name.
macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// All of them, in the order of their values.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in statistics and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

counters! {
    /// Why something that the kernel side should have delivered was not.
    DropCause {
        /// The home ring had no room; the application was faster than the drain.
        RingFull = "kernel.ring_full",
        /// The home ring does not exist (a CPU that came online later).
        RingMissing = "kernel.ring_missing",
        /// The application's memory could not be read without a page fault.
        UserFault = "kernel.user_fault",
        /// The middle of a call beyond the per-call budget.
        CallBudget = "kernel.call_budget",
        /// The middle of a call, because the ring was so full that only head and tail were kept.
        PressureMiddle = "kernel.pressure_middle",
        /// A call on a connection that wasn't among the sample, because the ring was nearly full.
        PressureConnection = "kernel.pressure_connection",
        /// The map of calls in flight refused an entry.
        CallMapFull = "kernel.call_map_full",
        /// The map of connections refused an entry.
        ConnMapFull = "kernel.conn_map_full",
        /// The filter of process ids was full when a child was to be followed.
        FilterFull = "kernel.filter_full",
        /// Bytes that went over a captured socket in a way that shows no buffer: sendfile(2), splice(2), io_uring.
        SocketUnseen = "kernel.socket_unseen",
        /// A record of rustls whose connection could not be told.
        Unpaired = "kernel.unpaired",
        /// Bytes of a record that rustls was given to decrypt and left where they can't be found, or refused.
        Undecrypted = "kernel.undecrypted",
        /// A call on a connection that another thread's program was busy with for too long.
        ConnBusy = "kernel.conn_busy",
    }
}

counters! {
    /// What the kernel side did.
    Total {
        /// Records handed over, and their payload bytes.
        Records = "records",
        /// Connections remembered anew (the entry count; no bytes).
        ConnsOpened = "connections_opened",
        /// Connections forgotten because they ended.
        ConnsClosed = "connections_closed",
        /// Connections whose first bytes can't be HTTP.
        ConnsIgnored = "connections_ignored",
    }
}

/// One counter: how often, and how many bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How often.
    pub events: u64,
    /// How many payload bytes.
    pub bytes: u64,
}

/// Entries of the counter map: the causes, then the totals.
pub const TALLIES: usize = DropCause::ALL.len() + Total::ALL.len();

impl DropCause {
    /// Index in the counter map.
    pub const fn index(self) -> u32 {
        self as u32
    }
}

impl Total {
    /// Index in the counter map.
    pub const fn index(self) -> u32 {
        DropCause::ALL.len() as u32 + self as u32
    }
}
