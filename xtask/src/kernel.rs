//! Linux for arm64: the slim kernel built from Debian's source, and Debian's own cloud kernel.

use crate::apt::Package;
use crate::cache::{Artefact, Cache, Recipe};
use crate::debian::Debian;
use crate::{apt, cross, paths};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Raise it when the steps below change what they make.
const REVISION: &str = "1";
/// What the build never opens, by far the most of the source.
const LEFT_OUT: [&str; 3] =
    ["*/tools/testing/*", "*/Documentation/*/*", "*/drivers/gpu/drm/*.[ch]"];
/// What a stock guest needs beyond what is built into its kernel.
const MODULES: [&str; 2] = ["virtio_mmio", "virtio_blk"];

/// The slim kernel; the artefact holds `Image` and `config`.
pub(crate) fn slim(cache: &Cache, debian: &Debian<'_>) -> Result<Artefact> {
    let package = &debian.resolution.linux_source;
    let config = paths::testbed("linux.config");
    let wanted = fs::read_to_string(&config)?;
    let recipe = Recipe::new("linux", 400)
        .part("revision", REVISION)
        .part("source", &package.file)
        .part("compiler", cross::gcc_version()?)
        .part("config", &wanted);
    cache.get(recipe, |shop| {
        let tree = shop.work.join("linux");
        if !shop.work.join("unpacked").exists() {
            apt::unpack(
                &debian.file(""),
                std::slice::from_ref(package),
                &shop.work.join("package"),
                shop.log,
            )?;
            let archive =
                shop.work.join("package/usr/src").join(format!("{}.tar.xz", package.name));
            let _ = fs::remove_dir_all(&tree);
            fs::create_dir(&tree)?;
            let mut tar = Command::new("tar");
            tar.arg("-C").arg(&tree).args(["--strip-components=1", "-xf"]).arg(archive);
            tar.args(LEFT_OUT.map(|pattern| format!("--exclude={pattern}")));
            shop.log.run(&mut tar)?;
            fs::remove_dir_all(shop.work.join("package"))?;
            fs::write(shop.work.join("unpacked"), "")?;
        }
        if !tree.join(".config").exists() {
            let all = format!("KCONFIG_ALLCONFIG={}", config.display());
            shop.log.run(make(&tree).args([&all, "allnoconfig"]))?;
        }
        let result = fs::read_to_string(tree.join(".config"))?;
        let lost: Vec<&str> = wanted
            .lines()
            .filter(|line| line.starts_with("CONFIG_") && !line.ends_with("=n"))
            .filter(|line| !result.lines().any(|has| has == *line))
            .collect();
        if !lost.is_empty() {
            bail!("the kernel's configuration lost {}", lost.join(", "));
        }
        shop.log.run(make(&tree).arg("-s").arg(paths::jobs()).arg("Image"))?;
        fs::copy(tree.join("arch/arm64/boot/Image"), shop.out.join("Image"))?;
        fs::write(shop.out.join("config"), result)?;
        fs::copy(tree.join("include/config/kernel.release"), shop.out.join("release"))?;
        Ok(())
    })
}

/// Debian's cloud kernel, as [`packaged`] has it.
pub(crate) fn stock(cache: &Cache, debian: &Debian<'_>) -> Result<Artefact> {
    let package = &debian.resolution.stock_kernel;
    packaged(cache, "linux-stock", &debian.file(""), package, &MODULES)
}

/// A kernel of Debian's; the artefact holds `vmlinuz` and `modules/` with an `order` to load them in.
pub(crate) fn packaged(
    cache: &Cache,
    name: &'static str,
    debs: &Path,
    package: &Package,
    modules: &[&str],
) -> Result<Artefact> {
    let recipe = Recipe::new(name, 5)
        .part("revision", REVISION)
        .part("package", &package.file)
        .part("modules", modules.join(" "));
    cache.get(recipe, |shop| {
        apt::unpack(debs, std::slice::from_ref(package), shop.work, shop.log)?;
        let release = package.name.strip_prefix("linux-image-").unwrap_or(&package.name);
        fs::copy(shop.work.join(format!("boot/vmlinuz-{release}")), shop.out.join("vmlinuz"))?;
        let tree = shop.work.join("usr/lib/modules").join(release);
        fs::create_dir(shop.out.join("modules"))?;
        let mut wanted = Modules {
            builtin: fs::read_to_string(tree.join("modules.builtin"))?,
            files: paths::files_below(&tree)?,
            order: Vec::new(),
        };
        for module in modules {
            wanted.collect(module, &shop.out.join("modules"))?;
        }
        fs::write(shop.out.join("modules/order"), wanted.order.join("\n") + "\n")?;
        Ok(())
    })
}

struct Modules {
    builtin: String,
    files: Vec<PathBuf>,
    order: Vec<String>,
}

impl Modules {
    /// Decompresses a module and, before it, those it depends on.
    fn collect(&mut self, module: &str, into: &Path) -> Result<()> {
        let is = |file: &str| {
            file.split(".ko")
                .next()
                .is_some_and(|stem| stem.replace('-', "_") == module.replace('-', "_"))
        };
        let builtin = self.builtin.lines().any(|line| is(line.rsplit('/').next().unwrap_or(line)));
        let file = format!("{}.ko", module.replace('-', "_"));
        if builtin || self.order.contains(&file) {
            return Ok(());
        }
        let path = self
            .files
            .iter()
            .find(|path| {
                path.file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(|name| name.contains(".ko") && is(name))
            })
            .with_context(|| format!("the stock kernel has no module {module}"))?
            .clone();
        let packed = match path.extension().and_then(|extension| extension.to_str()) {
            Some("xz") => Command::new("xz").arg("-dc").arg(&path).output()?,
            Some("ko") => Command::new("cat").arg(&path).output()?,
            _ => bail!("{}: neither .ko nor .ko.xz", path.display()),
        };
        for needed in depends(&packed.stdout) {
            self.collect(&needed, into)?;
        }
        fs::write(into.join(&file), packed.stdout)?;
        self.order.push(file);
        Ok(())
    }
}

/// The `depends=` of a module's .modinfo section.
fn depends(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|window| window == key) else {
        return Vec::new();
    };
    let value = module[at + key.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn make(tree: &Path) -> Command {
    let mut command = Command::new("make");
    command
        .arg("-C")
        .arg(tree)
        .args(["ARCH=arm64", &format!("CROSS_COMPILE={}", cross::GCC_PREFIX)]);
    command
}

#[cfg(test)]
mod tests {
    use super::depends;

    #[test]
    fn dependencies_are_read_from_modinfo() {
        assert_eq!(
            depends(b"\x7fELF\0license=GPL\0depends=virtio,virtio_ring\0name=x\0"),
            ["virtio", "virtio_ring"]
        );
        assert!(depends(b"\0depends=\0name=x\0").is_empty());
        assert!(depends(b"nothing").is_empty());
    }
}
