//! Puts the engine behind the API: the only place that knows both.

use crate::address::Address;
use crate::config::Settings;
use crate::data_dir::DataDir;
use crate::failure::{Exit, Failure};
use control::Service;
use std::pin::Pin;
use std::sync::Arc;

/// Something that ends in its own time.
pub(crate) type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A running engine.
pub(crate) struct Engine {
    /// What the API calls.
    pub(crate) service: Arc<dyn Service>,
    /// Where NBD clients are served, with real ports.
    pub(crate) nbd: Vec<Address>,
    /// Ends when the engine has stopped by itself, saying why.
    pub(crate) failure: Pending<Failure>,
    /// Answers what is under way, makes everything durable and closes; starts when first polled.
    pub(crate) drain: Pending<Result<(), Failure>>,
}

/// Opens the pool and its volumes and serves them.
pub(crate) async fn start(settings: &Settings, data: &DataDir) -> Result<Engine, Failure> {
    let detail = format!(
        "this build has no engine: pool {} in {} was not opened",
        settings.pool.display(),
        data.path().display()
    );
    Err(Failure::new(Exit::Failure, "not_in_this_build", detail))
}
