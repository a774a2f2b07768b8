#![no_main]

use agentsight::recording;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| recording::exercise(data));
