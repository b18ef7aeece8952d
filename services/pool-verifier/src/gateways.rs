//! Which gateways are live: no two may share instance and epoch, or their extranonces would
//! collide and miners would do the same work twice (D23).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Instance and epoch of a gateway.
type Key = (u16, u16);

/// The live gateways.
#[derive(Debug, Default)]
pub struct Gateways {
    live: Mutex<BTreeMap<Key, String>>,
}

/// A gateway's place among the live ones; free again when dropped.
#[derive(Debug)]
pub struct Place {
    gateways: Arc<Gateways>,
    key: Key,
}

impl Gateways {
    /// Take the place of `instance_id` and `epoch` for the gateway named `gateway_id`.
    ///
    /// # Errors
    /// The name of the gateway that has it.
    pub fn enter(
        self: &Arc<Gateways>,
        instance_id: u16,
        epoch: u16,
        gateway_id: &str,
    ) -> Result<Place, String> {
        let key = (instance_id, epoch);
        let mut live = self.live();
        if let Some(other) = live.get(&key) {
            return Err(other.clone());
        }
        live.insert(key, gateway_id.to_owned());
        Ok(Place { gateways: Arc::clone(self), key })
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<Key, String>> {
        // The map is whole after every single operation, so a poisoned lock hides nothing.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gateways.live().remove(&self.key);
    }
}
