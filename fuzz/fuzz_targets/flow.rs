#![no_main]

use agentsight::flow::exercise;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| exercise::flow(data));
