//! Reads GGUF files without trusting a number in them.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Every length is checked
//! against what is left of the file before anything is allocated for it, so that a damaged or
//! hostile file costs no more memory than a few times its own size.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};

use super::error::LoadError;
use super::read_at::ReadAt;

/// Bounds that no real model comes near (Qwen's vocabulary and merges have about 150,000 entries
/// each, its largest models about 1,000 tensors), so that a file is refused early.
const MAX_ENTRIES: u64 = 1 << 16;
const MAX_ARRAY: u64 = 1 << 22;
const MAX_TEXT: u64 = 1 << 24;
const MAX_NESTING: usize = 4;
const MAX_DIMENSIONS: u32 = 4;
/// The alignment of tensor data where the file does not say (from the specification).
const DEFAULT_ALIGNMENT: u64 = 32;

/// A metadata value, of the kinds that inference needs.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any integer.
    Integer(i64),
    /// Any float.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A string; bytes that are no UTF-8 are replaced.
    Text(String),
    /// An array of strings.
    Texts(Vec<String>),
    /// An array of 32-bit integers.
    Integers(Vec<i32>),
    /// Anything else, read past.
    Skipped,
}

/// Metadata by key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    entries: HashMap<String, Value>,
}

impl Metadata {
    /// A count or size.
    #[must_use]
    pub fn integer(&self, key: &str) -> Option<u64> {
        match self.entries.get(key) {
            Some(Value::Integer(value)) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// A number.
    #[must_use]
    pub fn float(&self, key: &str) -> Option<f64> {
        match self.entries.get(key) {
            Some(Value::Float(value)) => Some(*value),
            Some(Value::Integer(value)) => Some(*value as f64),
            _ => None,
        }
    }

    /// A string.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.entries.get(key) {
            Some(Value::Text(value)) => Some(value),
            _ => None,
        }
    }

    /// An array of strings.
    #[must_use]
    pub fn texts(&self, key: &str) -> Option<&[String]> {
        match self.entries.get(key) {
            Some(Value::Texts(values)) => Some(values),
            _ => None,
        }
    }

    /// An array of 32-bit integers.
    #[must_use]
    pub fn integers(&self, key: &str) -> Option<&[i32]> {
        match self.entries.get(key) {
            Some(Value::Integers(values)) => Some(values),
            _ => None,
        }
    }
}

/// Where a tensor lies.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TensorInfo {
    dtype: GgmlDType,
    /// Slowest first, as candle has them (the file has them the other way round).
    dims: Vec<usize>,
    /// From the start of the file.
    offset: u64,
    bytes: usize,
}

/// A GGUF file whose header has been read and checked.
#[derive(Debug)]
pub struct Gguf<R> {
    source: R,
    file: String,
    metadata: Metadata,
    tensors: HashMap<String, TensorInfo>,
    device: Device,
}

impl<R: Read + Seek> Gguf<R> {
    /// Reads the header and checks that all it announces lies within the file.
    ///
    /// # Errors
    /// [`LoadError`] naming `file` and what is wrong with it.
    pub fn open(source: R, file: &str) -> Result<Self, LoadError> {
        let mut header = Header::open(source, file)?;
        let metadata = header.metadata(|_| false)?;
        let alignment = metadata
            .integer("general.alignment")
            .unwrap_or(DEFAULT_ALIGNMENT);
        if !alignment.is_power_of_two() || alignment > 1 << 16 {
            return Err(header.malformed(format!("its alignment is {alignment}")));
        }
        let tensors = header.tensors(alignment)?;
        Ok(Self {
            source: header.source,
            file: header.file,
            metadata,
            tensors,
            device: Device::Cpu,
        })
    }

    /// The same file, its tensors read onto `device`. Without it they are read for the processor.
    #[must_use]
    pub fn on(mut self, device: &Device) -> Self {
        self.device = device.clone();
        self
    }

    /// Where its tensors are read to.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The metadata.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The metadata, which are then gone from here: a vocabulary is many megabytes.
    pub fn take_metadata(&mut self) -> Metadata {
        std::mem::take(&mut self.metadata)
    }

    /// The file as the user named it.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Whether the file has this tensor.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Elements in all tensors.
    #[must_use]
    pub fn elements(&self) -> usize {
        let count = |info: &TensorInfo| info.dims.iter().product::<usize>();
        self.tensors.values().map(count).sum()
    }

    /// The type that a tensor is stored in; `None` where there is no such tensor.
    #[must_use]
    pub fn stored(&self, name: &str) -> Option<GgmlDType> {
        self.tensors.get(name).map(|info| info.dtype)
    }

    /// Reads a tensor of exactly this shape.
    ///
    /// # Errors
    /// [`LoadError`] when it is missing, has another shape or cannot be read.
    pub fn tensor(&mut self, name: &str, dims: &[usize]) -> Result<QTensor, LoadError> {
        let info = self.info(name, dims)?;
        let io = |error| LoadError::io(&self.file, &error);
        let mut data = vec![0; info.bytes];
        self.source.seek(SeekFrom::Start(info.offset)).map_err(io)?;
        self.source.read_exact(&mut data).map_err(io)?;
        QStorage::from_data(data.into(), &self.device, info.dtype)
            .and_then(|storage| QTensor::new(storage, dims))
            .map_err(|error| {
                LoadError::candle(&self.file, &format!("reading the tensor {name}"), &error)
            })
    }

    /// Where a tensor of exactly this shape begins, in bytes from the file's first.
    ///
    /// # Errors
    /// [`LoadError`] when it is missing or has another shape.
    pub fn offset(&self, name: &str, dims: &[usize]) -> Result<u64, LoadError> {
        Ok(self.info(name, dims)?.offset)
    }

    /// Fills `bytes` with what is stored from byte `offset` on. For any thread.
    ///
    /// # Errors
    /// [`LoadError`] when it cannot be read.
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), LoadError>
    where
        R: ReadAt,
    {
        self.source
            .read_exact_at(offset, bytes)
            .map_err(|error| LoadError::io(&self.file, &error))
    }

    fn info(&self, name: &str, dims: &[usize]) -> Result<TensorInfo, LoadError> {
        let Some(info) = self.tensors.get(name) else {
            return Err(LoadError::malformed(
                &self.file,
                format!("the tensor {name} is missing"),
            ));
        };
        if info.dims != dims {
            let fact = format!(
                "the tensor {name} has the shape {:?}, the metadata ask for {dims:?}",
                info.dims
            );
            return Err(LoadError::malformed(&self.file, fact));
        }
        Ok(info.clone())
    }
}

/// Reads metadata up to the first point where `enough` says so: cheap where the wanted keys stand
/// before the vocabulary, as every known writer has them.
///
/// # Errors
/// [`LoadError`] naming `file` and what is wrong with it.
pub fn peek<R: Read + Seek>(
    source: R,
    file: &str,
    enough: impl Fn(&Metadata) -> bool,
) -> Result<Metadata, LoadError> {
    Header::open(source, file)?.metadata(enough)
}

/// A header being read.
struct Header<R> {
    source: R,
    file: String,
    position: u64,
    length: u64,
    tensor_count: u64,
    entry_count: u64,
}

impl<R: Read + Seek> Header<R> {
    fn open(mut source: R, file: &str) -> Result<Self, LoadError> {
        let io = |error| LoadError::io(file, &error);
        let length = source.seek(SeekFrom::End(0)).map_err(io)?;
        source.seek(SeekFrom::Start(0)).map_err(io)?;
        let mut header = Self {
            source,
            file: file.to_owned(),
            position: 0,
            length,
            tensor_count: 0,
            entry_count: 0,
        };
        let magic: [u8; 4] = header.bytes("its first bytes")?;
        if &magic != b"GGUF" {
            let fact = "it is no GGUF file (it does not start with \"GGUF\")";
            return Err(LoadError::unsupported(file, fact));
        }
        match header.u32("the version")? {
            2 | 3 => {}
            version if version.swap_bytes() == 3 => {
                let fact = "it is a big-endian GGUF file";
                return Err(LoadError::unsupported(file, fact));
            }
            version => {
                let fact = format!("it is a GGUF file of version {version}, not 2 or 3");
                return Err(LoadError::unsupported(file, fact));
            }
        }
        header.tensor_count = header.u64("the number of tensors")?;
        header.entry_count = header.u64("the number of metadata entries")?;
        if header.tensor_count > MAX_ENTRIES || header.entry_count > MAX_ENTRIES {
            return Err(header.malformed(format!(
                "it announces {} tensors and {} metadata entries",
                header.tensor_count, header.entry_count
            )));
        }
        Ok(header)
    }

    fn metadata(&mut self, enough: impl Fn(&Metadata) -> bool) -> Result<Metadata, LoadError> {
        let mut metadata = Metadata::default();
        for _ in 0..self.entry_count {
            let key = self.text("a metadata key")?;
            let kind = self.u32("a metadata type")?;
            let value = self.value(kind, 0)?;
            metadata.entries.insert(key, value);
            if enough(&metadata) {
                break;
            }
        }
        Ok(metadata)
    }

    fn tensors(&mut self, alignment: u64) -> Result<HashMap<String, TensorInfo>, LoadError> {
        let mut tensors = HashMap::new();
        for _ in 0..self.tensor_count {
            let name = self.text("a tensor's name")?;
            let info = self.tensor_info(&name, alignment)?;
            if tensors.insert(name.clone(), info).is_some() {
                return Err(self.malformed(format!("it has two tensors named {name}")));
            }
        }
        let start = self.position.next_multiple_of(alignment);
        for (name, info) in &mut tensors {
            info.offset = info.offset.saturating_add(start);
            let end = info.offset.saturating_add(info.bytes as u64);
            if end > self.length {
                let fact = format!(
                    "the tensor {name} ends at byte {end}, the file at byte {}",
                    self.length
                );
                return Err(LoadError::cut_short(&self.file, fact));
            }
        }
        Ok(tensors)
    }

    fn tensor_info(&mut self, name: &str, alignment: u64) -> Result<TensorInfo, LoadError> {
        let rank = self.u32("a tensor's rank")?;
        if rank == 0 || rank > MAX_DIMENSIONS {
            return Err(self.malformed(format!("the tensor {name} has {rank} dimensions")));
        }
        let mut dims = Vec::with_capacity(rank as usize);
        for _ in 0..rank {
            dims.push(self.u64("a tensor's shape")?);
        }
        let kind = self.u32("a tensor's type")?;
        let offset = self.u64("a tensor's offset")?;
        let Some(dtype) = dtype(kind) else {
            let fact = format!("the tensor {name} has the type {kind}, which is not known here");
            return Err(LoadError::unsupported(&self.file, fact));
        };
        let row = dims[0];
        let block = dtype.block_size() as u64;
        // An element takes at least a quarter of a byte in every known type.
        let elements = dims
            .iter()
            .try_fold(1u64, |product, dim| product.checked_mul(*dim))
            .filter(|elements| *elements > 0 && *elements / 4 <= self.length);
        let Some(elements) = elements.filter(|_| row.is_multiple_of(block)) else {
            return Err(self.malformed(format!("the tensor {name} has the shape {dims:?}")));
        };
        if !offset.is_multiple_of(alignment) {
            return Err(self.malformed(format!("the tensor {name} is not aligned")));
        }
        dims.reverse();
        Ok(TensorInfo {
            dtype,
            dims: dims.into_iter().map(|dim| dim as usize).collect(),
            offset,
            bytes: (elements / block) as usize * dtype.type_size(),
        })
    }

    /// The types are numbered in the specification's `gguf_metadata_value_type`.
    fn value(&mut self, kind: u32, nesting: usize) -> Result<Value, LoadError> {
        let what = "a metadata value";
        Ok(match kind {
            0 => Value::Integer(i64::from(u8::from_le_bytes(self.bytes(what)?))),
            1 => Value::Integer(i64::from(i8::from_le_bytes(self.bytes(what)?))),
            2 => Value::Integer(i64::from(u16::from_le_bytes(self.bytes(what)?))),
            3 => Value::Integer(i64::from(i16::from_le_bytes(self.bytes(what)?))),
            4 => Value::Integer(i64::from(self.u32(what)?)),
            5 => Value::Integer(i64::from(i32::from_le_bytes(self.bytes(what)?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.bytes(what)?))),
            7 => Value::Bool(self.bytes::<1>(what)? != [0]),
            8 => Value::Text(self.text(what)?),
            9 => self.array(nesting)?,
            10 => i64::try_from(self.u64(what)?).map_or(Value::Skipped, Value::Integer),
            11 => Value::Integer(i64::from_le_bytes(self.bytes(what)?)),
            12 => Value::Float(f64::from_le_bytes(self.bytes(what)?)),
            _ => return Err(self.malformed(format!("a metadata value has the type {kind}"))),
        })
    }

    fn array(&mut self, nesting: usize) -> Result<Value, LoadError> {
        let kind = self.u32("an array's type")?;
        let length = self.u64("an array's length")?;
        if length > MAX_ARRAY || nesting > MAX_NESTING {
            return Err(self.malformed(format!("it has an array of {length} elements")));
        }
        let smallest = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            _ => 8,
        };
        self.require(length * smallest, "an array")?;
        match kind {
            4 | 5 => {
                let mut values = Vec::with_capacity(length as usize);
                for _ in 0..length {
                    values.push(i32::from_le_bytes(self.bytes("an array")?));
                }
                Ok(Value::Integers(values))
            }
            8 => {
                let mut values = Vec::with_capacity(length as usize);
                for _ in 0..length {
                    values.push(self.text("an array")?);
                }
                Ok(Value::Texts(values))
            }
            9 => {
                for _ in 0..length {
                    self.array(nesting + 1)?;
                }
                Ok(Value::Skipped)
            }
            0..=12 => {
                for _ in 0..length {
                    self.value(kind, nesting + 1)?;
                }
                Ok(Value::Skipped)
            }
            _ => Err(self.malformed(format!("an array has the type {kind}"))),
        }
    }

    fn text(&mut self, what: &str) -> Result<String, LoadError> {
        let length = self.u64(what)?;
        if length > MAX_TEXT {
            return Err(self.malformed(format!("{what} has {length} bytes")));
        }
        self.require(length, what)?;
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes, what)?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    fn u32(&mut self, what: &str) -> Result<u32, LoadError> {
        Ok(u32::from_le_bytes(self.bytes(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, LoadError> {
        Ok(u64::from_le_bytes(self.bytes(what)?))
    }

    fn bytes<const N: usize>(&mut self, what: &str) -> Result<[u8; N], LoadError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8], what: &str) -> Result<(), LoadError> {
        self.require(bytes.len() as u64, what)?;
        self.source
            .read_exact(bytes)
            .map_err(|error| LoadError::io(&self.file, &error))?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Checks that `length` bytes are left before they are read or allocated.
    fn require(&self, length: u64, what: &str) -> Result<(), LoadError> {
        let left = self.length - self.position;
        if length <= left {
            return Ok(());
        }
        let fact = format!("{what} needs {length} bytes, and {left} are left of the file");
        Err(LoadError::cut_short(&self.file, fact))
    }

    fn malformed(&self, fact: String) -> LoadError {
        LoadError::malformed(&self.file, fact)
    }
}

/// The types that weights are stored in, as numbered by `ggml_type` in ggml.h.
fn dtype(kind: u32) -> Option<GgmlDType> {
    Some(match kind {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        30 => GgmlDType::BF16,
        _ => return None,
    })
}
