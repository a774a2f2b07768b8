#![no_main]

use agentsight::kernel::exercise;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| exercise::image(data));
