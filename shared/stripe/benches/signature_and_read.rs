//! Checking the signature of an event of about 5 KB, and reading it: what comes before Postgres.

use std::hint::black_box;

use jiff::Timestamp;
use secrecy::SecretString;
use stripe::event::Event;
use stripe::{reader, signature};
use testing::{bench, sample};

fn main() {
    let now = Timestamp::from_second(1_780_000_000).expect("an instant");
    let secrets = [SecretString::from("whsec_bench")];
    for name in [
        "stripe_invoice_paid_basil",
        "stripe_invoice_paid_2020_08_27",
    ] {
        let body = sample(name).body.into_bytes();
        let header = signature::sign(&body, &secrets[0], now);
        let name = format!("{name}, {} bytes", body.len());
        bench::report(&format!("{name}, signature"), || {
            signature::verify(Some(&header), black_box(&body), &secrets, now)
        });
        bench::report(&format!("{name}, read"), || {
            reader::read(&Event::parse(black_box(&body)).expect("an event"))
        });
        bench::report(&format!("{name}, signature and read"), || {
            signature::verify(Some(&header), black_box(&body), &secrets, now).expect("signed");
            reader::read(&Event::parse(&body).expect("an event"))
        });
    }
}
