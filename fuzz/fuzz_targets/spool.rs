#![no_main]

use agentsight::spool::exercise;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| exercise::spool(data));
