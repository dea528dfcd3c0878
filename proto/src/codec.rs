//! The server's codec: prost's, but a message with anything unknown in it is refused.
//!
//! Protobuf readers skip fields that they do not know. For a privileged service that is repairing, not
//! parsing: a newer client may have put its restriction into exactly that field.

use bytes::Buf as _;
use prost::Message;
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};

/// Encodes like prost, decodes only messages that are exactly what re-encoding them would give.
#[derive(Debug)]
pub struct StrictCodec<E, D>(PhantomData<(E, D)>);

impl<E, D> Default for StrictCodec<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E, D> Codec for StrictCodec<E, D>
where
    E: Message + Send + 'static,
    D: Message + Default + Send + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = tonic_prost::ProstEncoder<E>;
    type Decoder = StrictDecoder<D>;

    fn encoder(&mut self) -> Self::Encoder {
        tonic_prost::ProstCodec::<E, D>::raw_encoder(tonic::codec::BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        StrictDecoder(PhantomData)
    }
}

/// See [`StrictCodec`].
#[derive(Debug)]
pub struct StrictDecoder<D>(PhantomData<D>);

impl<D: Message + Default> Decoder for StrictDecoder<D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        decode_strict(bytes.copy_to_bytes(bytes.remaining())).map(Some)
    }
}

fn decode_strict<D: Message + Default>(bytes: bytes::Bytes) -> Result<D, Status> {
    let received = bytes.len();
    let message = D::decode(bytes)
        .map_err(|error| Status::invalid_argument(format!("not a valid request: {error}")))?;
    if message.encoded_len() != received {
        return Err(Status::invalid_argument(
            "the request has a field that this podsecd does not know, or one twice; is the client newer than the daemon?",
        ));
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::decode_strict;
    use crate::v1::{AuditFilter, HealthRequest, LoginShell};
    use prost::Message as _;

    #[test]
    fn takes_what_prost_writes() {
        let filter = AuditFilter { uid: Some(0), operation: "x".into(), last: 7, ..AuditFilter::default() };
        assert_eq!(decode_strict::<AuditFilter>(filter.encode_to_vec().into()).unwrap(), filter);
        decode_strict::<LoginShell>(bytes::Bytes::new()).unwrap();
    }

    #[test]
    fn refuses_unknown_and_repeated_fields() {
        // field 9, varint 1
        assert!(decode_strict::<HealthRequest>(vec![0x48, 1].into()).is_err());
        // `operation` twice: prost keeps the last, so the re-encoded length differs
        let twice = [0x12, 1, b'a', 0x12, 1, b'b'].to_vec();
        assert!(decode_strict::<AuditFilter>(twice.into()).is_err());
    }
}
