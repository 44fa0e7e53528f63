//! Every limit of this service, in one place.

use std::time::Duration;

/// A manifest or index (the distribution spec's own advice).
pub(crate) const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// An image config.
pub(crate) const CONFIG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// One layer blob.
pub(crate) const LAYER_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// What a layer that is made here may unpack to; hosts take no more.
pub(crate) const UNPACKED_BYTES_MAX: u64 = 20 * 1024 * 1024 * 1024;
/// How long an upload may do nothing.
pub(crate) const UPLOAD_PATIENCE: Duration = Duration::from_secs(300);
/// Layers of an image; what an overlay mount carries.
pub(crate) const LAYERS_MAX: usize = 127;
/// Entries of an index.
pub(crate) const INDEX_ENTRIES_MAX: usize = 1_000;
/// An index may name an index once; deeper is refused.
pub(crate) const INDEX_DEPTH_MAX: usize = 2;
/// An answer of a token service, or the text of an error.
pub(crate) const TOKEN_BYTES_MAX: u64 = 256 * 1024;
/// An error document of an upstream.
pub(crate) const ERROR_BYTES_MAX: u64 = 16 * 1024;
/// Hops of a redirect.
pub(crate) const REDIRECTS_MAX: usize = 5;
/// Layers of one pull downloaded at a time.
pub(crate) const LAYERS_IN_PARALLEL: usize = 3;
/// Pulls at work at a time; further ones are told to come back.
pub(crate) const PULLS_MAX: usize = 128;
/// Logins tried at registries at a time.
pub(crate) const LOGINS_MAX: usize = 32;
/// Tags of a repository that is pulled as a whole.
pub(crate) const TAGS_MAX: usize = 1_000;
/// Pages they may come in: a registry may send short ones, but not for ever.
pub(crate) const TAG_PAGES_MAX: usize = 100;
/// Attempts in a row at a blob without a byte of progress, and attempts at all.
pub(crate) const BLOB_ATTEMPTS_IN_VAIN_MAX: u32 = 4;
/// See [`BLOB_ATTEMPTS_IN_VAIN_MAX`].
pub(crate) const BLOB_ATTEMPTS_MAX: u32 = 12;
/// At most one progress line of a layer in this time.
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Progress lines that wait for a slow reader before the pull waits too.
pub(crate) const PROGRESS_LINES_QUEUED: usize = 64;
/// Part of a blob written at once.
pub(crate) const BLOB_PART_BYTES: usize = 5 * 1024 * 1024;
/// Read size when a blob is served.
pub(crate) const SERVE_CHUNK_BYTES: usize = 256 * 1024;

/// Entries of Env, Cmd, Entrypoint, Labels, Volumes, ExposedPorts and history, each.
pub(crate) const CONFIG_ENTRIES_MAX: usize = 4_096;
/// Bytes of one of those entries; the kernel takes no argument longer than this.
pub(crate) const CONFIG_ENTRY_BYTES_MAX: usize = 128 * 1024;
/// Bytes of all of them; the kernel takes no more for arguments and environment together.
pub(crate) const CONFIG_ENTRIES_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of an upload after which what came is made durable and noted.
pub(crate) const UPLOAD_NOTED_BYTES: u64 = 32 * 1024 * 1024;
/// Bytes of an upload that are written at once, where as many are here.
pub(crate) const UPLOAD_WRITTEN_BYTES: usize = 1024 * 1024;
/// A body that is all of an upload, and no longer than this, is read before anything is done about it.
pub(crate) const UPLOAD_SMALL_BYTES: u64 = 256 * 1024;
/// An upload nobody goes on with ends.
pub(crate) const UPLOAD_IDLE: Duration = Duration::from_secs(24 * 3600);
/// A file of an upload younger than this may belong to one that is being begun.
pub(crate) const UPLOAD_FILE_GRACE: Duration = Duration::from_secs(3600);
/// Uploads ended by one look.
pub(crate) const UPLOADS_SWEPT_MAX: i32 = 1_000;
/// Uploads whose running sum is kept in memory between two requests; others are read again at their end.
pub(crate) const UPLOAD_SUMS_MAX: usize = 4_096;
/// Descriptors of a manifest or index that is pushed.
pub(crate) const DESCRIPTORS_MAX: usize = 4_096;
/// Annotations of a manifest that is pushed.
pub(crate) const ANNOTATION_BYTES_MAX: usize = 64 * 1024;
/// Entries of one answer that lists tags or repositories.
pub(crate) const LIST_ENTRIES_MAX: i64 = 10_000;
/// Entries of one answer that lists referrers: their annotations bound its length.
pub(crate) const REFERRERS_MAX: i64 = 50;

/// Archives packed for `docker save`, and archives taken in for `docker load`, at a time, each.
pub(crate) const SAVES_MAX: usize = 64;
/// See [`SAVES_MAX`]; each may hold [`ARCHIVE_BYTES_MAX`] of the disk.
pub(crate) const LOADS_MAX: usize = 8;
/// Bytes of the files of an archive that is loaded, unpacked.
pub(crate) const ARCHIVE_BYTES_MAX: u64 = 32 * 1024 * 1024 * 1024;
/// Members of an archive that is loaded.
pub(crate) const ARCHIVE_MEMBERS_MAX: usize = 65_536;
/// Bytes of the name of one, or of where a link leads.
pub(crate) const MEMBER_PATH_BYTES_MAX: usize = 512;
/// Bytes of a header that goes on about a member (a long name, PAX records).
pub(crate) const MEMBER_EXTENSION_BYTES_MAX: u64 = 64 * 1024;
/// Links from link to link.
pub(crate) const MEMBER_LINKS_MAX: usize = 8;
/// KiB of memory that an archive packed with xz may ask for: what `xz -9` does.
pub(crate) const XZ_MEMORY_KIB_MAX: u32 = 68 * 1024;
/// Archives packed with xz that are unpacked at a time.
pub(crate) const XZ_AT_ONCE: usize = 8;
/// How many times its size an archive packed with xz or bzip2 may unpack to, beyond the bytes below.
/// gzip cannot do better.
pub(crate) const PACKED_RATIO_MAX: u64 = 1_000;
/// See [`PACKED_RATIO_MAX`].
pub(crate) const PACKED_RATIO_FREE_BYTES: u64 = 256 * 1024 * 1024;
/// Images of one archive, and names of one image in it.
pub(crate) const ARCHIVE_IMAGES_MAX: usize = 1_000;
/// Bytes of a broken archive that are read on, so that its sender gets to know what is wrong with it.
pub(crate) const ARCHIVE_DRAINED_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Links, blobs or files that one step of a collection looks at.
pub(crate) const COLLECTED_AT_ONCE: i32 = 500;
/// Directories of blobs of which one collection compares the files with the rows; the next goes on.
pub(crate) const SHARDS_COMPARED: u16 = 16;
/// Shortest time between two collections that can be configured.
pub(crate) const COLLECTION_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Pushes to registries of others at a time.
pub(crate) const PUSHES_MAX: usize = 64;
/// Repositories that a registry is asked to link a layer from before it is sent.
pub(crate) const MOUNTS_TRIED_MAX: usize = 3;
/// Time a registry has to answer when all of a blob or manifest is there.
pub(crate) const PUSH_ANSWER_PATIENCE: Duration = Duration::from_secs(300);
/// Pages of an upstream's catalog that one search reads.
pub(crate) const CATALOG_PAGES_MAX: usize = 10;

/// Changes to what a project keeps that are not added up yet.
pub(crate) const USAGE_ROWS_KEPT: i32 = 16;
