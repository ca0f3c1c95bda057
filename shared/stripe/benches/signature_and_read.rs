//! Checking the signature of an event of about 5 KB, and reading it: what comes before Postgres.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;
use secrecy::SecretString;
use stripe::event::Event;
use stripe::{reader, signature};
use testing::sample;

fn signature_and_read(criterion: &mut Criterion) {
    let now = Timestamp::from_second(1_780_000_000).expect("an instant");
    let secrets = [SecretString::from("whsec_bench")];
    for name in [
        "stripe_invoice_paid_basil",
        "stripe_invoice_paid_2020_08_27",
    ] {
        let body = sample(name).body.into_bytes();
        let header = signature::sign(&body, &secrets[0], now);
        let mut group = criterion.benchmark_group(format!("{name}, {} bytes", body.len()));
        group.throughput(Throughput::Bytes(body.len().try_into().expect("a length")));
        group.bench_function("signature", |bencher| {
            bencher.iter(|| signature::verify(Some(&header), black_box(&body), &secrets, now));
        });
        group.bench_function("read", |bencher| {
            bencher.iter(|| reader::read(&Event::parse(black_box(&body)).expect("an event")));
        });
        group.bench_function("signature and read", |bencher| {
            bencher.iter(|| {
                signature::verify(Some(&header), black_box(&body), &secrets, now).expect("signed");
                reader::read(&Event::parse(&body).expect("an event"))
            });
        });
        group.finish();
    }
}

criterion_group!(benches, signature_and_read);
criterion_main!(benches);
