//! A service over a folder of its own, which can be started anew.

use crate::support;
use blockd::Serving;
use blockd::catalogue::Catalogue;
use std::sync::Arc;
use tempfile::TempDir;

pub(crate) struct Running {
    folder: TempDir,
    pub(crate) serving: Serving,
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(folder: TempDir) -> Self {
        let serving = support::serve(folder.path()).await;
        Self { folder, serving }
    }

    pub(crate) fn catalogue(&self) -> Arc<Catalogue> {
        self.serving.catalogue()
    }

    pub(crate) async fn restart(self) -> Self {
        self.serving.stop().await.unwrap();
        Self::start_in(self.folder).await
    }
}
