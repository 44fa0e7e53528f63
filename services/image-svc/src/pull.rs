//! A pull: resolve the reference, bring the layers, record the image. Nothing of it can be seen in
//! the project before all of it is there, verified and durable.

mod all_tags;
mod download;
mod flight;
mod layers;
mod progress;
mod resolve;
mod source;

use std::sync::Arc;

use chassis::Bus;
use contract::{
    image::{PullRequest, RegistryAuth},
    wake::Topic,
};
use model::{Digest, Error, ImageReference, LayerDescriptor, ProjectId, Result};
use store::{ImageRow, ProjectScope, PulledImage, Store, StoredImage};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

pub(crate) use progress::Progress;

use crate::{
    blob_store::BlobStore,
    image_config,
    limits::{LOGINS_MAX, PULLS_MAX, PUSHES_MAX},
    upstream::{Platform, Repository, UpstreamError, Upstreams, Verdict},
};
use all_tags::AllTags;
use flight::Flights;
use resolve::Resolved;
use source::Hosted;
pub(crate) use source::{HostedNames, Source};

/// Does pulls. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Puller(Arc<Inner>);

struct Inner {
    store: Store,
    blobs: BlobStore,
    upstreams: Upstreams,
    hosted: HostedNames,
    flights: Flights,
    bus: Bus,
    platform: Platform,
    pulls: Arc<Semaphore>,
    pushes: Arc<Semaphore>,
    logins: Semaphore,
}

/// A pull that can begin to say how it goes.
pub(crate) enum Begun {
    /// Of one image.
    One(Box<Pull>),
    /// Of all of a repository's.
    All(Box<AllTags>),
}

/// A pull whose manifest is known: it can begin to say how it goes.
pub(crate) struct Pull {
    inner: Arc<Inner>,
    scope: ProjectScope,
    reference: ImageReference,
    source: Source,
    resolved: Resolved,
    /// The platform that was asked for by name.
    asked_for: Option<Platform>,
    _permit: Arc<OwnedSemaphorePermit>,
}

/// Everything of an image but its name.
struct Content {
    id: Digest,
    config: Vec<u8>,
    layers: Vec<LayerDescriptor>,
    platform: Platform,
    built_at: Option<time::OffsetDateTime>,
}

impl Puller {
    pub(crate) fn new(
        store: Store,
        blobs: BlobStore,
        upstreams: Upstreams,
        hosted: HostedNames,
        bus: Bus,
        platform: Platform,
    ) -> Self {
        let pulls = Arc::new(Semaphore::new(PULLS_MAX));
        let pushes = Arc::new(Semaphore::new(PUSHES_MAX));
        let logins = Semaphore::new(LOGINS_MAX);
        let flights = Flights::default();
        Self(Arc::new(Inner { store, blobs, upstreams, hosted, flights, bus, platform, pulls, pushes, logins }))
    }

    /// Resolves what is asked for. A failure here is still an answer with a status of its own.
    pub(crate) async fn begin(&self, request: PullRequest) -> Result<Begun> {
        let permit = self.0.pulls.clone().try_acquire_owned();
        let permit = Arc::new(permit.map_err(|_| Error::Unavailable("too many pulls at work; try again".into()))?);
        let reference: ImageReference = request.reference.parse()?;
        if !request.all_tags {
            return Ok(Begun::One(Box::new(self.resolve(&request, reference, permit).await?)));
        }
        let sources =
            self.sources(&reference, request.project, request.auth.as_ref()).await.map_err(|e| e.about(&reference))?;
        let tags = all_tags::find(sources, &reference).await?;
        Ok(Begun::All(Box::new(AllTags { puller: self.clone(), request, reference, tags, permit })))
    }

    /// Whether the registry that credentials are for takes them; why not.
    pub(crate) async fn login(&self, auth: &RegistryAuth) -> Result<Option<String>> {
        let busy = |_| Error::Unavailable("too many logins are being tried; try again".into());
        let _permit = self.0.logins.try_acquire().map_err(busy)?;
        match self.0.upstreams.login(auth).await.map_err(UpstreamError::of_registry)? {
            Verdict::Accepted => Ok(None),
            Verdict::Refused(why) => Ok(Some(why)),
        }
    }

    async fn resolve(
        &self,
        request: &PullRequest,
        reference: ImageReference,
        permit: Arc<OwnedSemaphorePermit>,
    ) -> Result<Pull> {
        let asked_for = match request.platform.as_deref().filter(|p| !p.is_empty()) {
            Some(text) => Some(Platform::parse(text).ok_or_else(|| bad_platform(text))?),
            None => None,
        };
        let wanted = asked_for.as_ref().unwrap_or(&self.0.platform);
        let sources =
            self.sources(&reference, request.project, request.auth.as_ref()).await.map_err(|e| e.about(&reference))?;
        let found = resolve::resolve(sources, &reference, wanted).await;
        let (source, resolved) = found.map_err(|e| e.about(&reference))?;
        Ok(Pull {
            inner: self.0.clone(),
            scope: ProjectScope::delegated(request.project),
            reference,
            source,
            resolved,
            asked_for,
            _permit: permit,
        })
    }
}

impl Puller {
    /// Where to look, in order. What is hosted here is nowhere else, and is read with the rights of the
    /// caller's project, whatever other credentials came along.
    pub(crate) async fn sources(
        &self,
        reference: &ImageReference,
        project: ProjectId,
        auth: Option<&RegistryAuth>,
    ) -> std::result::Result<Vec<Source>, UpstreamError> {
        if self.0.hosted.has(reference) {
            let hosted = Hosted::find(&self.0.store, &self.0.blobs, reference, project).await?;
            return Ok(vec![Source::Hosted(hosted)]);
        }
        let repositories = self.0.upstreams.repositories(reference, auth)?;
        Ok(repositories.into_iter().map(|repository| Source::Upstream(Arc::new(repository))).collect())
    }

    /// Where a push goes that does not go to the hosted registry, and the right to be at it.
    pub(crate) fn push_target(
        &self,
        reference: &ImageReference,
        auth: Option<&RegistryAuth>,
    ) -> Result<(Repository, OwnedSemaphorePermit)> {
        let permit = self.0.pushes.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Error::Unavailable("too many pushes at work; try again".into()))?;
        Ok((self.0.upstreams.target(reference, auth).map_err(UpstreamError::of_push)?, permit))
    }

    /// Names of the repositories of upstreams that may be searched.
    pub(crate) async fn catalogs(&self) -> std::result::Result<Vec<(String, Vec<String>)>, UpstreamError> {
        self.0.upstreams.catalogs().await
    }

    /// The right to ask a registry something small.
    pub(crate) fn asking(&self) -> Result<SemaphorePermit<'_>> {
        let busy = |_| Error::Unavailable("too many questions are being put to registries; try again".into());
        self.0.logins.try_acquire().map_err(busy)
    }
}

fn bad_platform(text: &str) -> Error {
    let shown: String = text.chars().take(64).collect();
    Error::invalid("platform", &format!("{shown:?} is not os/architecture[/variant]"))
}

impl Begun {
    /// Runs to the end, saying how it goes in dockerd's words.
    pub(crate) async fn run(self, progress: &Progress) -> Result<()> {
        match self {
            Self::All(all) => all.run(progress).await,
            Self::One(pull) => {
                let outcome =
                    if pull.bring(progress).await? { "Downloaded newer image for" } else { "Image is up to date for" };
                progress.line(&format!("Status: {outcome} {}", pull.reference), None).await;
                Ok(())
            }
        }
    }
}

impl Pull {
    /// Brings the image; whether it is another than was there.
    async fn bring(&self, progress: &Progress) -> Result<bool> {
        let digest = self.reference.digest.as_ref().map(ToString::to_string);
        let id = digest.or_else(|| self.reference.tag.clone()).unwrap_or_default();
        progress.line(&format!("Pulling from {}", self.reference.repository), Some(&id)).await;
        // From before the first look until the image refers to them.
        let image = &self.resolved.image;
        let mut parts: Vec<Digest> = image.layers.iter().map(|(layer, _)| layer.digest.clone()).collect();
        parts.push(image.config.digest.clone());
        let _kept = self.inner.blobs.keep(parts).await;
        let content = match self.content_held().await? {
            Some(content) => content,
            None => self.fetch_content(progress).await?,
        };
        self.check_platform(&content.platform)?;
        let changed = self.record(&content).await?;
        self.inner.bus.publish(&Topic::Project(self.scope.project()));
        progress.line(&format!("Digest: {}", self.resolved.named_by), None).await;
        tracing::info!(reference = %self.reference, image = %content.id, changed, "pulled");
        Ok(changed)
    }

    /// The image, if this project has pulled this very manifest before and its blobs are all here.
    async fn content_held(&self) -> Result<Option<Content>> {
        let mut tx = self.inner.store.project_tx(&self.scope).await?;
        let Some(row) = tx.image_with_manifest(&self.resolved.manifest.digest).await? else { return Ok(None) };
        drop(tx);
        for layer in &row.layers {
            if self.inner.blobs.size(&layer.digest).await? != Some(layer.size_bytes) {
                return Ok(None);
            }
        }
        let ImageRow { id, config, layers, architecture, os, built_at, .. } = row;
        let platform = Platform { os, architecture, variant: String::new() };
        Ok(Some(Content { id, config, layers, platform, built_at }))
    }

    async fn fetch_content(&self, progress: &Progress) -> Result<Content> {
        let manifest = &self.resolved.image;
        let about = |e: UpstreamError| e.about(&self.reference);
        let config = self.source.document(&manifest.config.digest, manifest.config.size).await.map_err(about)?;
        let checked = image_config::check(&config, manifest.layers.len()).map_err(|e| Error::Failed(e.to_string()))?;
        self.check_platform(&checked.platform)?;
        self.fetch_layers(progress).await?;
        let layers = manifest.layers.iter().zip(checked.diff_ids).map(|((layer, encoding), diff_id)| LayerDescriptor {
            digest: layer.digest.clone(),
            diff_id,
            size_bytes: layer.size,
            encoding: *encoding,
        });
        Ok(Content {
            id: manifest.config.digest.clone(),
            config: config.to_vec(),
            layers: layers.collect(),
            platform: checked.platform,
            built_at: checked.built_at,
        })
    }

    /// A manifest outside of an index tells its platform only in its config.
    fn check_platform(&self, found: &Platform) -> Result<()> {
        match &self.asked_for {
            Some(wanted) if found.os != wanted.os || found.architecture != wanted.architecture => {
                Err(Error::NotFound(format!(
                    "image with reference {} was found but its platform ({found}) does not match the specified platform ({wanted})",
                    self.reference
                )))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// One transaction: the image, its layers, its names, the event.
    async fn record(&self, content: &Content) -> Result<bool> {
        let size: u64 = content.layers.iter().map(|l| l.size_bytes).sum();
        let mut tx = self.inner.store.project_tx(&self.scope).await?;
        let changed = tx
            .record_pulled_image(&PulledImage {
                reference: &self.reference,
                image: StoredImage {
                    id: &content.id,
                    manifest_digest: &self.resolved.manifest.digest,
                    manifest: &self.resolved.manifest.body,
                    config: &content.config,
                    layers: &content.layers,
                    architecture: &content.platform.architecture,
                    os: &content.platform.os,
                    size_bytes: i64::try_from(size).unwrap_or(i64::MAX),
                    built_at: content.built_at,
                },
                digests: std::slice::from_ref(&self.resolved.named_by),
            })
            .await?;
        tx.commit().await?;
        Ok(changed)
    }
}
