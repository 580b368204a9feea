use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::ImageFormat;
use super::super::descriptors::{Descriptors, FileKind};
use super::super::locked_file::open_locked;
use super::super::parts_error::PartsError;
use super::header::Header;
use super::host::HostFile;
use super::storage::Layer;
use super::vmdk::vmdk;
use crate::image::OpenError;

/// Images that may build on one another.
const LIMIT: usize = 64;

/// The open files of an image that isn't raw, and of those that it builds on.
#[derive(Debug)]
pub(in crate::image) struct ChainFiles {
    pub(super) read_only: bool,
    /// The image.
    pub(super) image: LayerFiles,
    /// What it builds on: each is the backing file of the one before.
    pub(super) backing: Vec<LayerFiles>,
}

/// The open files of one image of a chain.
#[derive(Debug)]
pub(super) struct LayerFiles {
    pub(super) format: ImageFormat,
    pub(super) file: NamedFile,
    /// Further files that have its data: that of a qcow2 image, if it has one, and the extents of a VMDK image.
    pub(super) data: Vec<NamedFile>,
}

/// An open and locked file, and its absolute path.
#[derive(Debug)]
pub(super) struct NamedFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
}

impl NamedFile {
    /// The same file, open and locked once.
    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { path: self.path.clone(), file: self.file.try_clone()? })
    }

    pub(super) fn into_layer(self) -> Layer {
        Layer::plain(Arc::new(HostFile::new(self.file)), self.path)
    }
}

/// [`ChainFiles`] without their files.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(in crate::image) struct ChainFacts {
    read_only: bool,
    image: LayerFacts,
    backing: Vec<LayerFacts>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct LayerFacts {
    format: ImageFormat,
    path: HostPath,
    data: Vec<HostPath>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct HostPath(#[cfg_attr(feature = "serde", serde(with = "super::super::path_bytes"))] PathBuf);

impl ChainFiles {
    /// Opens and locks an image and all the files that it builds on.
    ///
    /// Of a qcow2 image the header is read, whose names and formats of other files are followed, and of a VMDK
    /// image the descriptor, which imago parses. Tables and data are left to the one who makes the image.
    pub(in crate::image) fn open(
        path: &Path,
        format: ImageFormat,
        read_only: bool,
    ) -> Result<Self, OpenError> {
        if format == ImageFormat::Vmdk && !read_only {
            return Err(OpenError::ReadOnlyFormat { path: path.to_owned(), format });
        }
        let mut backing = Vec::new();
        let image = open_layer(path, format, read_only, 1, &mut backing)?;
        // Each was added after those below it.
        backing.reverse();
        Ok(Self { read_only, image, backing })
    }

    pub(in crate::image) fn format(&self) -> ImageFormat {
        self.image.format
    }

    pub(in crate::image) fn path(&self) -> &Path {
        &self.image.file.path
    }

    pub(in crate::image) fn into_parts(self) -> (ChainFacts, Vec<OwnedFd>) {
        let mut fds = Vec::new();
        let mut split = |layer: LayerFiles| layer.into_parts(&mut fds);
        let image = split(self.image);
        let backing = self.backing.into_iter().map(split).collect();
        (ChainFacts { read_only: self.read_only, image, backing }, fds)
    }

    pub(in crate::image) fn from_parts(
        facts: ChainFacts,
        fds: Vec<OwnedFd>,
    ) -> Result<Self, PartsError> {
        let layers = facts.backing.iter().chain([&facts.image]);
        let expected = layers.map(|layer| layer.data.len().saturating_add(1)).sum();
        let mut fds = Descriptors::new(fds, expected)?;
        let image = facts.image.join(&mut fds)?;
        let backing = facts.backing.into_iter().map(|layer| layer.join(&mut fds));
        Ok(Self { read_only: facts.read_only, image, backing: backing.collect::<Result<_, _>>()? })
    }
}

impl LayerFiles {
    fn into_parts(self, fds: &mut Vec<OwnedFd>) -> LayerFacts {
        let mut split = |NamedFile { path, file }: NamedFile| {
            fds.push(file.into());
            HostPath(path)
        };
        let path = split(self.file);
        LayerFacts { format: self.format, path, data: self.data.into_iter().map(split).collect() }
    }
}

impl LayerFacts {
    fn join(self, fds: &mut Descriptors) -> Result<LayerFiles, PartsError> {
        let mut join = |HostPath(path): HostPath| {
            let file = fds.next(FileKind::Either)?;
            Ok(NamedFile { path, file })
        };
        let file = join(self.path)?;
        let data = self.data.into_iter().map(join).collect::<Result<_, _>>()?;
        Ok(LayerFiles { format: self.format, file, data })
    }
}

/// Opens the `nth` image of a chain, and adds what it builds on to `backing`, the last of the chain first.
fn open_layer(
    path: &Path,
    format: ImageFormat,
    read_only: bool,
    nth: usize,
    backing: &mut Vec<LayerFiles>,
) -> Result<LayerFiles, OpenError> {
    if nth > LIMIT {
        return Err(OpenError::Chain { path: path.to_owned(), limit: LIMIT });
    }
    let file = open_file(path, read_only)?;
    let data = match format {
        ImageFormat::Raw => Vec::new(),
        ImageFormat::Vmdk => extents(&file)?,
        ImageFormat::Qcow2 => {
            let failed = |source| unusable(path, format, source);
            let layer =
                |source| OpenError::Layer { path: path.to_owned(), source: Box::new(source) };
            let mut data = Vec::new();
            // A file that is no qcow2 image at all is refused when the image is made.
            if let Some(header) = Header::read(&file.file).map_err(failed)? {
                if header.has_external_data_file() {
                    let name = header.data_file(&file.file).map_err(failed)?;
                    let name = name.ok_or_else(|| {
                        failed(io::Error::other("it doesn't name its external data file"))
                    })?;
                    data.push(open_file(&beside(&file.path, &name), read_only).map_err(layer)?);
                }
                if let Some(name) = header.backing_file(&file.file).map_err(failed)? {
                    let stated = header.backing_format(&file.file).map_err(failed)?;
                    let format = backing_format(path, &name, stated)?;
                    let nth = nth.saturating_add(1);
                    let below = open_layer(&beside(&file.path, &name), format, true, nth, backing);
                    backing.push(below.map_err(layer)?);
                }
            }
            data
        }
    };
    Ok(LayerFiles { format, file, data })
}

/// The format that the image at `path` states of its backing file, which is `name`. It is never guessed from
/// what a guest may have written there.
fn backing_format(
    path: &Path,
    name: &str,
    stated: Option<String>,
) -> Result<ImageFormat, OpenError> {
    match stated.as_deref() {
        None => {
            let (path, backing) = (path.to_owned(), name.to_owned());
            Err(OpenError::BackingFormat { path, backing })
        }
        // As old versions of QEMU have it.
        Some("file" | "host_device") => Ok(ImageFormat::Raw),
        Some(format) => format
            .parse()
            .map_err(|error| unusable(path, ImageFormat::Qcow2, io::Error::other(error))),
    }
}

/// Opens the extents of a VMDK image, in the order in which its descriptor names them.
fn extents(descriptor: &NamedFile) -> Result<Vec<NamedFile>, OpenError> {
    let mut extents = Vec::new();
    let extent = |path: &Path| {
        let extent = open_file(path, true).map_err(io::Error::other)?;
        let layer = extent.try_clone()?.into_layer();
        extents.push(extent);
        Ok(layer)
    };
    let opened = descriptor.try_clone().and_then(|own| vmdk(own.into_layer(), extent));
    opened.map_err(|source| unusable(&descriptor.path, ImageFormat::Vmdk, source))?;
    Ok(extents)
}

/// The file that the one at `path` calls `name`.
pub(super) fn beside(path: &Path, name: &str) -> PathBuf {
    path.parent().map_or_else(|| name.into(), |directory| directory.join(name))
}

/// Opens and locks a file.
fn open_file(path: &Path, read_only: bool) -> Result<NamedFile, OpenError> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (file, _) = open_locked(&path, read_only, false)?;
    Ok(NamedFile { path, file })
}

pub(super) fn unusable(path: &Path, format: ImageFormat, source: io::Error) -> OpenError {
    OpenError::Format { path: path.to_owned(), format, source }
}
