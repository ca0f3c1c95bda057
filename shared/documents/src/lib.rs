//! Documents: data in, bytes out.

mod canvas;
pub mod csv_export;
pub mod invoice_document;
pub mod invoice_pdf;
pub mod issuer;
mod logo;
mod printed_text;
mod typeface;
