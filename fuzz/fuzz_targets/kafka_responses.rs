#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tine_fuzz::responses::judge(input));
