#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ocifs_fuzz::archive::check(bytes));
