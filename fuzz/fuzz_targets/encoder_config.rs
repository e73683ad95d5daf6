#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| veilformer_fuzz::encoder_config(data));
