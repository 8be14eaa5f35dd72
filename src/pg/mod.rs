//! The only place that touches the server's internals: all `unsafe` is here.
//!
//! The rooms see safe functions. Each block says why it is sound; the server
//! calls a backend from one thread only, which is the reason for most of them.
#![allow(unsafe_code)]

pub mod audit_table;
pub mod background;
pub mod cache;
pub mod call;
pub mod capture;
pub mod denial;
pub mod error;
pub mod fault_point;
pub mod guc;
pub mod keys;
pub mod progress;
pub mod spi;
pub mod sys;
pub mod trigger;
pub mod utility;
pub mod worker;
