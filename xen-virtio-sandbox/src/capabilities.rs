use rustix::io::Errno;
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities,
    capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
};

use crate::{Layer, SandboxError, State};

const LAYER: Layer = Layer::Capabilities;

/// As many as the kernel's sets have room for.
const CAPABILITIES: u32 = 64;

/// What takes capabilities, done before the process has another identity and with it lost them: no
/// program that it runs has any, whatever its file says, and root isn't special.
pub(crate) fn bound() -> Result<(), SandboxError> {
    let failed = |what| SandboxError::layer::<Errno>(LAYER, what);
    for capability in 0..CAPABILITIES {
        let set = CapabilitySet::from_bits_retain(1 << capability);
        match remove_capability_from_bounding_set(set) {
            // The kernel has no more.
            Err(Errno::INVAL) => break,
            result => result.map_err(failed("PR_CAPBSET_DROP"))?,
        }
    }
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(bits).map_err(failed("PR_SET_SECUREBITS"))
}

/// Clears what [`bound`] left: the capabilities of the process itself.
pub(crate) fn clear() -> Result<State, SandboxError> {
    let failed = |what| SandboxError::layer::<Errno>(LAYER, what);
    clear_ambient_capability_set().map_err(failed("PR_CAP_AMBIENT_CLEAR_ALL"))?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, sets).map_err(failed("capset"))?;

    if capabilities(None).map_err(failed("capget"))? != sets {
        return Err(SandboxError::Left { layer: LAYER, what: "a capability is left" });
    }
    for capability in 0..CAPABILITIES {
        match capability_is_in_bounding_set(CapabilitySet::from_bits_retain(1 << capability)) {
            Ok(false) => {}
            Err(Errno::INVAL) => break,
            _ => {
                let what = "a capability is left in the bounding set";
                return Err(SandboxError::Left { layer: LAYER, what });
            }
        }
    }
    Ok(State::On)
}
