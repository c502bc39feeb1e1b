//! AWS: clients, identity, ARNs, policies, and the conversion of SDK errors.

mod account;
mod arn;
mod clients;
mod console;
mod credentials;
mod error;
mod http;
pub(crate) mod listing;
mod openings;
pub(crate) mod policy;
mod session;
mod wait;

pub(crate) use account::Account;
pub(crate) use arn::{function_name, is_key, log_group_name, resource_in, role_path};
pub(crate) use clients::{Aws, configured_region};
pub(crate) use error::{Answer, AwsError, Call, ResourceError, absent_on, denied_action};
pub(crate) use openings::Openings;
pub(crate) use session::Session;
pub(crate) use wait::{Pauses, Wait, retry_while, wait_until};
