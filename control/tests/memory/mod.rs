//! A service that keeps volumes in memory: names, sizes and conflicts behave as over an engine, without its data.

use control::metrics::{Snapshot, VolumeMetrics};
use control::{
    Answer, Compaction, ErrorCode, Pool, PoolState, Service, ServiceError, Slots, Volume, VolumeName, VolumeSize,
    VolumeState,
};
use std::collections::BTreeMap;
use std::sync::Mutex;
use tokio::sync::{Notify, oneshot};

pub(crate) struct MemoryService {
    state: Mutex<State>,
    held: Mutex<Option<oneshot::Receiver<()>>>,
    /// Notified when a change begins to wait.
    pub(crate) change_waits: Notify,
    /// Notified after each change.
    pub(crate) change_made: Notify,
}

#[derive(Default)]
struct State {
    volumes: BTreeMap<String, Volume>,
    data_end: BTreeMap<String, u64>,
    last_id: u64,
    is_stopping: bool,
}

impl MemoryService {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            held: Mutex::new(None),
            change_waits: Notify::new(),
            change_made: Notify::new(),
        }
    }

    /// Makes the next change wait until something is sent.
    pub(crate) fn hold_changes(&self) -> oneshot::Sender<()> {
        let (release, held) = oneshot::channel();
        *self.held.lock().unwrap() = Some(held);
        release
    }

    pub(crate) fn attach(&self, name: &str, connections: u64) {
        self.state.lock().unwrap().volumes.get_mut(name).unwrap().connections = connections;
    }

    pub(crate) fn write_to(&self, name: &str, data_end: u64) {
        self.state.lock().unwrap().data_end.insert(name.to_owned(), data_end);
    }

    pub(crate) fn stop(&self) {
        self.state.lock().unwrap().is_stopping = true;
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.state.lock().unwrap().volumes.contains_key(name)
    }

    async fn wait_if_held(&self) {
        let held = self.held.lock().unwrap().take();
        if let Some(held) = held {
            self.change_waits.notify_one();
            held.await.unwrap();
        }
    }
}

impl State {
    fn create(&mut self, name: &VolumeName, size: VolumeSize) -> Result<Volume, ServiceError> {
        if let Some(existing) = self.volumes.get(name.as_str()) {
            let detail = format!("volume {name:?} exists with {} bytes: choose another name", existing.size_bytes);
            return Err(ServiceError::new(ErrorCode::VolumeExists, detail));
        }
        self.last_id += 1;
        let volume = Volume {
            name: name.to_string(),
            id: self.last_id,
            size_bytes: size.bytes(),
            written_bytes: Some(0),
            state: VolumeState::Online,
            state_reason: None,
            connections: 0,
            shard: 0,
            created_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            nbd_uris: vec![format!("nbd://127.0.0.1:10809/{name}")],
        };
        self.volumes.insert(name.to_string(), volume.clone());
        Ok(volume)
    }

    fn find(&mut self, name: &VolumeName) -> Result<&mut Volume, ServiceError> {
        let missing = || ServiceError::new(ErrorCode::VolumeNotFound, format!("there is no volume {name}"));
        self.volumes.get_mut(name.as_str()).ok_or_else(missing)
    }

    fn resize(&mut self, name: &VolumeName, size: VolumeSize, discard: bool) -> Result<Volume, ServiceError> {
        let data_end = self.data_end.get(name.as_str()).copied().unwrap_or(0);
        let volume = self.find(name)?;
        if data_end > size.bytes() && !discard {
            return Err(ServiceError::new(ErrorCode::ShrinkRefused, format!("data reaches to {data_end}")));
        }
        volume.size_bytes = size.bytes();
        Ok(volume.clone())
    }

    fn delete(&mut self, name: &VolumeName, force: bool) -> Result<(), ServiceError> {
        let connections = self.find(name)?.connections;
        if connections > 0 && !force {
            return Err(ServiceError::new(ErrorCode::VolumeInUse, format!("{connections} clients are attached")));
        }
        self.volumes.remove(name.as_str());
        Ok(())
    }
}

impl Service for MemoryService {
    fn create_volume(&self, name: VolumeName, size: VolumeSize) -> Answer<'_, Volume> {
        Box::pin(async move {
            self.wait_if_held().await;
            let made = self.state.lock().unwrap().create(&name, size);
            self.change_made.notify_one();
            made
        })
    }

    fn list_volumes(&self) -> Answer<'_, Vec<Volume>> {
        Box::pin(async move { Ok(self.state.lock().unwrap().volumes.values().rev().cloned().collect()) })
    }

    fn show_volume(&self, name: VolumeName) -> Answer<'_, Volume> {
        Box::pin(async move { self.state.lock().unwrap().find(&name).cloned() })
    }

    fn resize_volume(&self, name: VolumeName, size: VolumeSize, discard_tail: bool) -> Answer<'_, Volume> {
        Box::pin(async move { self.state.lock().unwrap().resize(&name, size, discard_tail) })
    }

    fn delete_volume(&self, name: VolumeName, force: bool) -> Answer<'_, ()> {
        Box::pin(async move { self.state.lock().unwrap().delete(&name, force) })
    }

    fn show_pool(&self) -> Answer<'_, Pool> {
        Box::pin(async move {
            Ok(Pool {
                path: "memory".into(),
                size_bytes: 1 << 30,
                slot_bytes: 32 << 20,
                slots: Slots { total: 32, free: 30, reserved: 2, used: 0 },
                segments: 0,
                compaction: Compaction::default(),
                volumes: self.state.lock().unwrap().volumes.len() as u64,
                state: PoolState::Online,
                state_reason: None,
                index_generation: 1,
            })
        })
    }

    fn check_ready(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            if self.state.lock().unwrap().is_stopping {
                return Err(ServiceError::new(ErrorCode::ShuttingDown, "the service stops"));
            }
            Ok(())
        })
    }

    fn metrics(&self) -> Answer<'_, Snapshot> {
        Box::pin(async move {
            let pool = self.show_pool().await?;
            let state = self.state.lock().unwrap();
            let of = |volume: &Volume| VolumeMetrics {
                name: volume.name.clone(),
                size_bytes: volume.size_bytes,
                written_bytes: volume.written_bytes,
                connections: volume.connections,
                state: volume.state,
                operations: Vec::new(),
            };
            Ok(Snapshot { shards: Vec::new(), volumes: state.volumes.values().map(of).collect(), pool: Some(pool) })
        })
    }
}
