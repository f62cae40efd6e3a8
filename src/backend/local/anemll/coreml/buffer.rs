//! The memory of tensors: IOSurfaces that the Neural Engine reads and writes in place, plain arrays
//! where there can be none, and reads and writes that honour their strides.

use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr::NonNull;

use block2::StackBlock;
use half::f16;
use objc2::AnyThread;
use objc2::rc::Retained;
use objc2_core_foundation::{CFDictionary, CFRetained, CFString, CFType};
use objc2_core_ml::{MLMultiArray, MLMultiArrayDataType};
use objc2_core_video::{
    CVPixelBuffer, CVPixelBufferCreate, CVPixelBufferGetBaseAddress, CVPixelBufferGetBytesPerRow,
    CVPixelBufferGetHeight, CVPixelBufferGetWidth, CVPixelBufferLockBaseAddress,
    CVPixelBufferLockFlags, CVPixelBufferUnlockBaseAddress, kCVPixelBufferIOSurfacePropertiesKey,
    kCVPixelFormatType_OneComponent16Half, kCVReturnSuccess,
};
use objc2_foundation::{NSArray, NSNumber};

use super::super::contract::{BufferSpec, Element};
use super::super::layout::{Layout, product};
use super::objc;

/// A tensor's memory, and the array that Core ML sees of it.
pub struct Buffer {
    array: Retained<MLMultiArray>,
    /// The IOSurface below the array, for half precision.
    surface: Option<Surface>,
    spec: BufferSpec,
}

struct Surface {
    pixels: CFRetained<CVPixelBuffer>,
    layout: Layout,
}

/// Marks types that are the elements of arrays: plain numbers for which any bytes will do.
trait Number: Copy + Default {
    const DATA_TYPE: MLMultiArrayDataType;
}

impl Number for f16 {
    const DATA_TYPE: MLMultiArrayDataType = MLMultiArrayDataType::Float16;
}
impl Number for f32 {
    const DATA_TYPE: MLMultiArrayDataType = MLMultiArrayDataType::Float32;
}
impl Number for i32 {
    const DATA_TYPE: MLMultiArrayDataType = MLMultiArrayDataType::Int32;
}

impl Buffer {
    /// Memory for such a tensor, zeroed: on an IOSurface for half precision where one can be made.
    pub fn new(spec: &BufferSpec) -> Result<Self, String> {
        let surface = match spec.element {
            Element::Float16 => Surface::new(&spec.shape).ok(),
            Element::Float32 | Element::Int32 => None,
        };
        let shape = objc::numbers(&spec.shape);
        let array = match &surface {
            // SAFETY: the pixel buffer is of the format that this initialiser asks for, its width
            // is the last dimension and its height the product of the others.
            Some(surface) => unsafe {
                MLMultiArray::initWithPixelBuffer_shape(
                    MLMultiArray::alloc(),
                    &surface.pixels,
                    &shape,
                )
            },
            // SAFETY: shape and data type are valid; failing to allocate is an error, not undefined.
            None => unsafe {
                MLMultiArray::initWithShape_dataType_error(
                    MLMultiArray::alloc(),
                    &shape,
                    data_type(spec.element),
                )
            }
            .map_err(|error| objc::text(&error))?,
        };
        let mut buffer = Self {
            array,
            surface,
            spec: spec.clone(),
        };
        buffer.clear()?;
        Ok(buffer)
    }

    /// The array to give to Core ML.
    pub fn array(&self) -> &MLMultiArray {
        &self.array
    }

    /// Whether the Neural Engine can use this memory in place.
    pub fn is_shared(&self) -> bool {
        self.surface.is_some()
    }

    /// What it was made for.
    pub fn spec(&self) -> &BufferSpec {
        &self.spec
    }

    fn clear(&mut self) -> Result<(), String> {
        let count = self.spec.elements();
        match self.spec.element {
            Element::Float16 => self.write(0, &vec![f16::ZERO; count]),
            Element::Float32 => self.write(0, &vec![0_f32; count]),
            Element::Int32 => self.write(0, &vec![0_i32; count]),
        }
    }

    /// Writes `values` from the element `at` on.
    pub fn write_f16(&mut self, at: usize, values: &[f16]) -> Result<(), String> {
        self.write(at, values)
    }

    /// Writes `values` from the element `at` on.
    pub fn write_i32(&mut self, at: usize, values: &[i32]) -> Result<(), String> {
        self.write(at, values)
    }

    fn write<T: Number>(&mut self, at: usize, values: &[T]) -> Result<(), String> {
        if let Some(surface) = &self.surface {
            return surface.access(CVPixelBufferLockFlags(0), |memory, layout| {
                layout.write(half_as(memory)?, at, values);
                Ok(())
            });
        }
        change(&self.array, |memory, layout| {
            layout.write(memory, at, values);
        })
    }

    /// Reads all as float32.
    pub fn read_f32(&self, into: &mut [f32]) -> Result<(), String> {
        match (&self.surface, self.spec.element) {
            (Some(surface), _) => {
                surface.access(CVPixelBufferLockFlags::ReadOnly, |memory, layout| {
                    layout.widen(memory, into);
                    Ok(())
                })
            }
            (None, Element::Float16) => look(&self.array, |memory, layout| {
                layout.widen(memory, into);
            }),
            (None, Element::Float32) => look(&self.array, |memory, layout| {
                layout.read(memory, into);
            }),
            (None, Element::Int32) => look(&self.array, |memory: &[i32], layout| {
                for run in layout.runs(0..into.len()) {
                    for step in 0..run.length {
                        into[run.index + step] = memory[run.offset + step] as f32;
                    }
                }
            }),
        }
    }

    /// Reads all integers.
    pub fn read_i32(&self, into: &mut [i32]) -> Result<(), String> {
        look(&self.array, |memory, layout| layout.read(memory, into))
    }

    /// Copies an output that Core ML put elsewhere.
    pub fn copy_from(&mut self, array: &MLMultiArray) -> Result<(), String> {
        // SAFETY: a property without side effects.
        let given = objc::shape(&*unsafe { array.shape() });
        if product(&given) != Some(self.spec.elements()) {
            return Err(format!(
                "it has the shape {given:?}, expected is {:?}",
                self.spec.shape
            ));
        }
        match self.spec.element {
            Element::Float16 => self.copy::<f16>(array),
            Element::Float32 => self.copy::<f32>(array),
            Element::Int32 => self.copy::<i32>(array),
        }
    }

    fn copy<T: Number>(&mut self, array: &MLMultiArray) -> Result<(), String> {
        let mut values = vec![T::default(); self.spec.elements()];
        look(array, |memory, layout| layout.read(memory, &mut values))?;
        self.write(0, &values)
    }
}

impl Surface {
    fn new(shape: &[usize]) -> Result<Self, String> {
        let width = shape.last().copied().unwrap_or(1);
        let height =
            product(&shape[..shape.len().saturating_sub(1)]).ok_or("the shape overflows")?;
        let nothing = CFDictionary::<CFString, CFType>::empty();
        let nothing: &CFType = nothing.as_opaque().as_ref();
        // SAFETY: a constant of Core Video, which is there for as long as the process.
        let key = unsafe { kCVPixelBufferIOSurfacePropertiesKey };
        let attributes = CFDictionary::<CFString, CFType>::from_slices(&[key], &[nothing]);
        let mut made: *mut CVPixelBuffer = std::ptr::null_mut();
        // SAFETY: `made` outlives the call, and the attributes are a dictionary as it asks for.
        let code = unsafe {
            CVPixelBufferCreate(
                None,
                width,
                height,
                kCVPixelFormatType_OneComponent16Half,
                Some(attributes.as_opaque()),
                NonNull::from(&mut made),
            )
        };
        let made = NonNull::new(made).filter(|_| code == kCVReturnSuccess);
        let made = made.ok_or_else(|| format!("no pixel buffer could be made ({code})"))?;
        // SAFETY: a function with Create in its name hands over one reference, which this takes.
        let pixels = unsafe { CFRetained::from_raw(made) };
        if CVPixelBufferGetWidth(&pixels) != width || CVPixelBufferGetHeight(&pixels) != height {
            return Err("the pixel buffer has another size".to_owned());
        }
        let stride = CVPixelBufferGetBytesPerRow(&pixels) / size_of::<f16>();
        let layout = Layout::padded_rows(shape, stride).map_err(|error| error.to_string())?;
        Ok(Self { pixels, layout })
    }

    /// Calls `job` with the memory, which belongs to the CPU meanwhile.
    fn access<R>(
        &self,
        flags: CVPixelBufferLockFlags,
        job: impl FnOnce(&mut [f16], &Layout) -> Result<R, String>,
    ) -> Result<R, String> {
        // SAFETY: the pixel buffer is valid; it is unlocked below with the same flags.
        let code = unsafe { CVPixelBufferLockBaseAddress(&self.pixels, flags) };
        if code != kCVReturnSuccess {
            return Err(format!("the pixel buffer could not be locked ({code})"));
        }
        let base = CVPixelBufferGetBaseAddress(&self.pixels).cast::<f16>();
        let result = if base.is_null() {
            Err("the pixel buffer has no memory".to_owned())
        } else {
            // SAFETY: while locked, the memory holds height rows of bytes-per-row bytes each, of
            // which the layout's span ends inside the last row, and rows are aligned for f16.
            // Predictions are synchronous and this thread makes them all, so nobody else writes;
            // when locked for reading only, no caller writes into it.
            let memory = unsafe { std::slice::from_raw_parts_mut(base, self.layout.span()) };
            job(memory, &self.layout)
        };
        // SAFETY: locked above with the same flags.
        unsafe { CVPixelBufferUnlockBaseAddress(&self.pixels, flags) };
        result
    }
}

/// `memory` as elements of `T`, which is `f16` wherever there is a surface.
fn half_as<T: Number>(memory: &mut [f16]) -> Result<&mut [T], String> {
    if T::DATA_TYPE != MLMultiArrayDataType::Float16 {
        return Err("a surface holds half precision only".to_owned());
    }
    // SAFETY: only `f16` has this data type, so the slice is given back as what it is.
    Ok(unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast(), memory.len()) })
}

/// Calls `job` with an array's memory.
fn look<T: Number>(array: &MLMultiArray, job: impl FnOnce(&[T], &Layout)) -> Result<(), String> {
    // SAFETY: properties without side effects.
    let (strides, found) = unsafe { (array.strides(), array.dataType()) };
    let layout = described(array, &strides)?;
    holds::<T>(found)?;
    let once = RefCell::new((Some(job), Err("Core ML lent no memory".to_owned())));
    let block = StackBlock::new(|memory: NonNull<c_void>, bytes: isize| {
        let mut once = once.borrow_mut();
        once.1 = fits::<T>(bytes, &layout);
        if let (Some(job), Ok(())) = (once.0.take(), &once.1) {
            // SAFETY: Core ML lends `bytes` bytes of this data type for the duration of the block,
            // and `fits` has held the layout's span to them.
            job(
                unsafe { std::slice::from_raw_parts(memory.as_ptr().cast(), layout.span()) },
                &layout,
            );
        }
    });
    // SAFETY: the block is called before this returns, and does not keep the memory.
    unsafe { array.getBytesWithHandler(&block) };
    once.into_inner().1
}

/// Calls `job` with an array's memory, to write.
fn change<T: Number>(
    array: &MLMultiArray,
    job: impl FnOnce(&mut [T], &Layout),
) -> Result<(), String> {
    // SAFETY: a property without side effects.
    holds::<T>(unsafe { array.dataType() })?;
    let once = RefCell::new((Some(job), Err("Core ML lent no memory".to_owned())));
    let block = StackBlock::new(
        |memory: NonNull<c_void>, bytes: isize, strides: NonNull<NSArray<NSNumber>>| {
            let mut once = once.borrow_mut();
            // SAFETY: Core ML passes an array that lives as long as the block runs.
            let layout = described(array, unsafe { strides.as_ref() });
            match layout.and_then(|layout| fits::<T>(bytes, &layout).map(|()| layout)) {
                Ok(layout) => {
                    if let Some(job) = once.0.take() {
                        // SAFETY: as in `look`; the memory is lent for writing here, and nobody
                        // else holds it.
                        let memory = unsafe {
                            std::slice::from_raw_parts_mut(memory.as_ptr().cast(), layout.span())
                        };
                        job(memory, &layout);
                    }
                    once.1 = Ok(());
                }
                Err(what) => once.1 = Err(what),
            }
        },
    );
    // SAFETY: the block is called before this returns, and does not keep the memory.
    unsafe { array.getMutableBytesWithHandler(&block) };
    once.into_inner().1
}

fn described(array: &MLMultiArray, strides: &NSArray<NSNumber>) -> Result<Layout, String> {
    // SAFETY: a property without side effects.
    let shape = objc::shape(&*unsafe { array.shape() });
    Layout::new(&shape, &objc::shape(strides)).map_err(|error| error.to_string())
}

fn holds<T: Number>(found: MLMultiArrayDataType) -> Result<(), String> {
    if found == T::DATA_TYPE {
        Ok(())
    } else {
        Err(format!(
            "its numbers are of Core ML's type {:#x}, expected is {:#x}",
            found.0,
            T::DATA_TYPE.0
        ))
    }
}

fn fits<T>(bytes: isize, layout: &Layout) -> Result<(), String> {
    let lent = usize::try_from(bytes).unwrap_or(0) / size_of::<T>();
    if layout.span() <= lent {
        Ok(())
    } else {
        Err(format!(
            "Core ML lent {lent} elements of memory, and {} are needed",
            layout.span()
        ))
    }
}

fn data_type(element: Element) -> MLMultiArrayDataType {
    match element {
        Element::Float16 => f16::DATA_TYPE,
        Element::Float32 => f32::DATA_TYPE,
        Element::Int32 => i32::DATA_TYPE,
    }
}

/// The sums of absolute values of an array's rows, which are all that follows its first dimension.
pub fn row_sums(array: &MLMultiArray) -> Result<Vec<f64>, String> {
    // SAFETY: a property without side effects.
    let rows = objc::shape(&*unsafe { array.shape() })
        .first()
        .copied()
        .unwrap_or(0);
    let mut sums = vec![0.0; rows];
    look(array, |memory: &[f16], layout| {
        let row = layout.elements() / rows.max(1);
        for (at, sum) in sums.iter_mut().enumerate() {
            *sum = layout
                .runs(at * row..(at + 1) * row)
                .flat_map(|run| &memory[run.offset..run.offset + run.length])
                .map(|value| f64::from(value.to_f32().abs()))
                .sum();
        }
    })?;
    Ok(sums)
}
