//! Images in memory: they are as far as they were told to be.

use super::{MemoryService, State};
use control::{
    ErrorCode, Image, ImageSharing, ImageState, Operation, OperationKind, OperationState, ServiceError, VolumeName,
    VolumeSize,
};

impl State {
    pub(super) fn operations(&self) -> Vec<Operation> {
        let operation = |kind, (id, target, tenant): (String, &str, &str)| Operation {
            id,
            kind,
            target: target.to_owned(),
            tenant: Some(tenant.to_owned()),
            state: OperationState::Running,
            left: 512,
            total: None,
            unit: "bytes".to_owned(),
            is_cancellable: kind == OperationKind::Import,
            begun_at: None,
            ended_at: None,
        };
        let images = self.images.values().map(|(image, _)| image);
        let imports = images.filter(|image| image.state == ImageState::Importing).map(|image| {
            operation(OperationKind::Import, (format!("import-{}", image.claim), &image.name, &image.tenant))
        });
        let erasure = operation(OperationKind::Erase, ("erase-1".to_owned(), "acme/gone", "acme"));
        imports.chain([erasure]).collect()
    }
}

impl MemoryService {
    pub(super) fn import(
        &self,
        name: &VolumeName,
        size: VolumeSize,
        source: (String, String),
    ) -> Result<Image, ServiceError> {
        let mut state = self.state.lock().unwrap();
        if state.volumes.contains_key(name.as_str()) {
            return Err(ServiceError::new(ErrorCode::VolumeExists, format!("{name} is a volume")));
        }
        if let Some((image, known)) = state.images.get(name.as_str()) {
            return match image.state {
                ImageState::Importing if *known == source => Ok(image.clone()),
                ImageState::Importing => Err(ServiceError::new(ErrorCode::ImageImporting, "another source")),
                ImageState::Ready | ImageState::Quarantined => {
                    Err(ServiceError::new(ErrorCode::VolumeExists, format!("{name} is an image")))
                }
            };
        }
        state.check_tenant(name.tenant())?;
        state.last_id += 1;
        let image = Image {
            name: name.to_string(),
            tenant: name.tenant().to_string(),
            sharing: ImageSharing::default(),
            id: state.last_id,
            size_bytes: size.bytes(),
            written_bytes: Some(0),
            state: ImageState::Importing,
            state_reason: None,
            copied_bytes: 0,
            claim: state.last_id,
            source: source.0.clone(),
            created_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            nbd_uris: vec![format!("nbd://127.0.0.1:10809/{name}")],
        };
        state.images.insert(name.to_string(), (image.clone(), source));
        Ok(image)
    }

    pub(super) fn change_image(
        &self,
        name: &VolumeName,
        change: impl FnOnce(&mut Image) -> Result<(), ServiceError>,
    ) -> Result<Image, ServiceError> {
        let mut state = self.state.lock().unwrap();
        let missing = || ServiceError::no_image(name.as_str());
        let (image, _) = state.images.get_mut(name.as_str()).ok_or_else(missing)?;
        change(image)?;
        Ok(image.clone())
    }

    pub(super) fn mark(&self, name: &VolumeName, claim: Option<u64>, copied_bytes: u64) -> Result<Image, ServiceError> {
        self.change_image(name, |image| {
            check_claim(image, claim)?;
            image.copied_bytes = copied_bytes;
            Ok(())
        })
    }

    pub(super) fn seal(&self, name: &VolumeName, claim: Option<u64>) -> Result<Image, ServiceError> {
        self.change_image(name, |image| {
            check_claim(image, claim)?;
            if image.copied_bytes < image.size_bytes {
                return Err(ServiceError::new(ErrorCode::ImageImporting, "it is not copied whole"));
            }
            image.state = ImageState::Ready;
            Ok(())
        })
    }
}

pub(super) fn is_usable(image: &Image, tenant: &str) -> bool {
    image.tenant == tenant || image.sharing.all || image.sharing.tenants.iter().any(|name| name == tenant)
}

pub(super) fn check_claim(image: &Image, claim: Option<u64>) -> Result<(), ServiceError> {
    if claim.is_none_or(|claim| claim == image.claim) {
        return Ok(());
    }
    Err(ServiceError::new(ErrorCode::ImportSuperseded, "another import"))
}
