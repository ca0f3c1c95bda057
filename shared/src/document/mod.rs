//! Documents: data in, bytes out.

pub mod csv_export;
