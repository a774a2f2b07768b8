#![no_main]

use agentsight::wire::exercise;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| exercise::json_array(data));
