//! A workload in a ring's memory: a file laid out as the kernel lays out a BPF ring buffer.

use std::{fs::File, io, os::fd::AsFd, os::unix::fs::FileExt};

use agentsight::ring::{Record, Ring};

use crate::workload::Workload;

const PAGE_BYTES: u64 = 4096;

/// A ring that holds all records of a workload, and can be filled again.
pub struct Filled {
    file: File,
    ring: Ring,
    /// Payload bytes.
    pub bytes: u64,
    /// Records.
    pub records: u64,
}

impl Filled {
    /// Lays out `workload` in an unlinked file of the system's folder for temporary ones.
    ///
    /// # Errors
    /// What the file system and mmap(2) say.
    pub fn new(workload: &Workload) -> io::Result<Self> {
        let mut data = vec![];
        for recorded in &workload.records {
            let header = Record { header: recorded.header, payload: &recorded.payload }.header_bytes();
            data.extend_from_slice(&((header.len() + recorded.payload.len()) as u32).to_ne_bytes());
            data.extend_from_slice(&[0; 4]);
            data.extend_from_slice(&header);
            data.extend_from_slice(&recorded.payload);
            data.resize(data.len().next_multiple_of(8), 0);
        }
        let (filled, size) = (data.len() as u64, data.len().next_power_of_two());
        let path = std::env::temp_dir().join(format!("agentsight-bench-{}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        std::fs::remove_file(&path)?;
        // Positions of the consumer and of the producers, then the data twice in a row.
        file.set_len(2 * PAGE_BYTES + 2 * size as u64)?;
        file.write_all_at(&filled.to_ne_bytes(), PAGE_BYTES)?;
        file.write_all_at(&data, 2 * PAGE_BYTES)?;
        file.write_all_at(&data, 2 * PAGE_BYTES + size as u64)?;
        let ring = Ring::new(file.as_fd(), size)?;
        Ok(Self { file, ring, bytes: workload.bytes as u64, records: workload.records.len() as u64 })
    }

    /// Drains the ring, which is full again for the next time.
    ///
    /// # Panics
    /// When not every record comes out.
    pub fn drain(&mut self, each: impl FnMut(Record<'_>)) {
        self.file.write_all_at(&0_u64.to_ne_bytes(), 0).expect("a file in memory");
        let drained = self.ring.drain(u64::MAX, each);
        assert_eq!((drained.records, drained.malformed), (self.records, 0));
    }
}
