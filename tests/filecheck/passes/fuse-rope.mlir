// RUN: forgec opt %s -p 'fuse-rope,dce' --split-input-file | filecheck %s

// DOC: the rotation of the two halves of each head.
// CHECK-LABEL: func.func @halves
// CHECK-NEXT:    %[[R:.*]] = forge.rope %x cos %cos sin %sin : (tensor<4x3x8xf32>, tensor<3x8xf32>, tensor<3x8xf32>) -> tensor<4x3x8xf32>
// CHECK-NEXT:    func.return %[[R]]
func.func @halves(%x : tensor<4x3x8xf32>, %cos : tensor<3x8xf32>, %sin : tensor<3x8xf32>) -> tensor<4x3x8xf32> {
  %0 = forge.mul %x, %cos : (tensor<4x3x8xf32>, tensor<3x8xf32>) -> tensor<4x3x8xf32>
  %1 = forge.slice %x dim 2 from 0 step 1 : (tensor<4x3x8xf32>) -> tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 1]>>
  %2 = forge.slice %x dim 2 from 4 step 1 : (tensor<4x3x8xf32>) -> tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 1]>>
  %3 = forge.neg %2 : (tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 1]>>) -> tensor<4x3x4xf32>
  %4 = forge.concat %3, %1 dim 2 : (tensor<4x3x4xf32>, tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 1]>>) -> tensor<4x3x8xf32>
  %5 = forge.mul %4, %sin : (tensor<4x3x8xf32>, tensor<3x8xf32>) -> tensor<4x3x8xf32>
  %6 = forge.add %0, %5 : (tensor<4x3x8xf32>, tensor<4x3x8xf32>) -> tensor<4x3x8xf32>
  func.return %6 : tensor<4x3x8xf32>
}

// -----

// Every second feature, then those between, as halves; the tables have each angle once; a dynamic extent.
// CHECK-LABEL: func.func @to_halves
// CHECK-NEXT:    forge.rope %x cos %cos sin %sin interleaved to_halves once :
func.func @to_halves(%x : tensor<?x8xf32, #forge.tensor<[s0]>>, %cos : tensor<?x4xf32, #forge.tensor<[s0]>>, %sin : tensor<?x4xf32, #forge.tensor<[s0]>>) -> tensor<?x8xf32, #forge.tensor<[s0]>> {
  %0 = forge.slice %x dim 1 from 0 step 2 : (tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?x4xf32, #forge.tensor<[s0], strides = [8, 2]>>
  %1 = forge.slice %x dim 1 from 1 step 2 : (tensor<?x8xf32, #forge.tensor<[s0]>>) -> tensor<?x4xf32, #forge.tensor<[s0], strides = [8, 2]>>
  %2 = forge.mul %0, %cos : (tensor<?x4xf32, #forge.tensor<[s0], strides = [8, 2]>>, tensor<?x4xf32, #forge.tensor<[s0]>>) -> tensor<?x4xf32, #forge.tensor<[s0]>>
  %3 = forge.mul %1, %sin : (tensor<?x4xf32, #forge.tensor<[s0], strides = [8, 2]>>, tensor<?x4xf32, #forge.tensor<[s0]>>) -> tensor<?x4xf32, #forge.tensor<[s0]>>
  %4 = forge.sub %2, %3 : (tensor<?x4xf32, #forge.tensor<[s0]>>, tensor<?x4xf32, #forge.tensor<[s0]>>) -> tensor<?x4xf32, #forge.tensor<[s0]>>
  %5 = forge.mul %1, %cos : (tensor<?x4xf32, #forge.tensor<[s0], strides = [8, 2]>>, tensor<?x4xf32, #forge.tensor<[s0]>>) -> tensor<?x4xf32, #forge.tensor<[s0]>>
  %6 = forge.mul %0, %sin : (tensor<?x4xf32, #forge.tensor<[s0], strides = [8, 2]>>, tensor<?x4xf32, #forge.tensor<[s0]>>) -> tensor<?x4xf32, #forge.tensor<[s0]>>
  %7 = forge.add %5, %6 : (tensor<?x4xf32, #forge.tensor<[s0]>>, tensor<?x4xf32, #forge.tensor<[s0]>>) -> tensor<?x4xf32, #forge.tensor<[s0]>>
  %8 = forge.concat %4, %7 dim 1 : (tensor<?x4xf32, #forge.tensor<[s0]>>, tensor<?x4xf32, #forge.tensor<[s0]>>) -> tensor<?x8xf32, #forge.tensor<[s0]>>
  func.return %8 : tensor<?x8xf32, #forge.tensor<[s0]>>
}

// -----

// In float32 and back, and between features that are not rotated. The table's halves are equal: one half will do.
// CHECK-LABEL: func.func @partial
// CHECK-NEXT:    %[[C:.*]] = forge.cos %angles : (tensor<3x2xf32>)
// CHECK-NEXT:    %[[S:.*]] = forge.sin %angles : (tensor<3x2xf32>)
// CHECK-NEXT:    forge.rope %x cos %[[C]] sin %[[S]] once keep_dtype start 3 : (tensor<3x8xbf16>, tensor<3x2xf32>, tensor<3x2xf32>) -> tensor<3x8xbf16>
// CHECK-NEXT:    func.return
func.func @partial(%x : tensor<3x8xbf16>, %angles : tensor<3x2xf32>) -> tensor<3x8xbf16> {
  %0 = forge.concat %angles, %angles dim 1 : (tensor<3x2xf32>, tensor<3x2xf32>) -> tensor<3x4xf32>
  %cos = forge.cos %0 : (tensor<3x4xf32>) -> tensor<3x4xf32>
  %sin = forge.sin %0 : (tensor<3x4xf32>) -> tensor<3x4xf32>
  %1 = forge.slice %x dim 1 from 3 step 1 : (tensor<3x8xbf16>) -> tensor<3x4xbf16, #forge.tensor<[], strides = [8, 1]>>
  %2 = forge.cast %1 : (tensor<3x4xbf16, #forge.tensor<[], strides = [8, 1]>>) -> tensor<3x4xf32>
  %3 = forge.mul %2, %cos : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %4 = forge.slice %2 dim 1 from 0 step 1 : (tensor<3x4xf32>) -> tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>
  %5 = forge.slice %2 dim 1 from 2 step 1 : (tensor<3x4xf32>) -> tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>
  %6 = forge.neg %5 : (tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>) -> tensor<3x2xf32>
  %7 = forge.concat %6, %4 dim 1 : (tensor<3x2xf32>, tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>) -> tensor<3x4xf32>
  %8 = forge.mul %7, %sin : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %9 = forge.add %3, %8 : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %10 = forge.cast %9 : (tensor<3x4xf32>) -> tensor<3x4xbf16>
  %11 = forge.slice %x dim 1 from 0 step 1 : (tensor<3x8xbf16>) -> tensor<3x3xbf16, #forge.tensor<[], strides = [8, 1]>>
  %12 = forge.slice %x dim 1 from 7 step 1 : (tensor<3x8xbf16>) -> tensor<3x1xbf16, #forge.tensor<[], strides = [8, 1]>>
  %13 = forge.concat %11, %10, %12 dim 1 : (tensor<3x3xbf16, #forge.tensor<[], strides = [8, 1]>>, tensor<3x4xbf16>, tensor<3x1xbf16, #forge.tensor<[], strides = [8, 1]>>) -> tensor<3x8xbf16>
  func.return %13 : tensor<3x8xbf16>
}

// -----

// Complex numbers of which only the angles are known.
// CHECK-LABEL: func.func @complex
// CHECK-NEXT:    %[[C:.*]] = forge.cos %angles
// CHECK-NEXT:    %[[S:.*]] = forge.sin %angles
// CHECK-NEXT:    forge.rope %x cos %[[C]] sin %[[S]] interleaved once :
// CHECK-NEXT:    func.return
func.func @complex(%x : tensor<3x8xf32>, %angles : tensor<3x4xf32>) -> tensor<3x8xf32> {
  %0 = forge.constant dense<1.0> : tensor<3x4xf32>
  %1 = forge.aten "aten::polar"(%0, %angles) : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xcomplex<f32>>
  %2 = forge.reshape %x : (tensor<3x8xf32>) -> tensor<3x4x2xf32>
  %3 = forge.aten "aten::view_as_complex"(%2) : (tensor<3x4x2xf32>) -> tensor<3x4xcomplex<f32>>
  %4 = forge.mul %3, %1 : (tensor<3x4xcomplex<f32>>, tensor<3x4xcomplex<f32>>) -> tensor<3x4xcomplex<f32>>
  %5 = forge.aten "aten::view_as_real"(%4) : (tensor<3x4xcomplex<f32>>) -> tensor<3x4x2xf32>
  %6 = forge.reshape %5 : (tensor<3x4x2xf32>) -> tensor<3x8xf32>
  func.return %6 : tensor<3x8xf32>
}

// -----

// The features between the rotated ones come from another value: they stay apart.
// CHECK-LABEL: func.func @beside
// CHECK-NEXT:    %[[R:.*]] = forge.rope %x cos %cos sin %sin once : (tensor<3x4xf32>, tensor<3x2xf32>, tensor<3x2xf32>) -> tensor<3x4xf32>
// CHECK-NEXT:    forge.concat %y, %[[R]] dim 1
func.func @beside(%x : tensor<3x4xf32>, %y : tensor<3x4xf32>, %cos : tensor<3x2xf32>, %sin : tensor<3x2xf32>) -> tensor<3x8xf32> {
  %0 = forge.slice %x dim 1 from 0 step 1 : (tensor<3x4xf32>) -> tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>
  %1 = forge.slice %x dim 1 from 2 step 1 : (tensor<3x4xf32>) -> tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>
  %2 = forge.mul %0, %cos : (tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>, tensor<3x2xf32>) -> tensor<3x2xf32>
  %3 = forge.mul %1, %sin : (tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>, tensor<3x2xf32>) -> tensor<3x2xf32>
  %4 = forge.sub %2, %3 : (tensor<3x2xf32>, tensor<3x2xf32>) -> tensor<3x2xf32>
  %5 = forge.mul %1, %cos : (tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>, tensor<3x2xf32>) -> tensor<3x2xf32>
  %6 = forge.mul %0, %sin : (tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>, tensor<3x2xf32>) -> tensor<3x2xf32>
  %7 = forge.add %5, %6 : (tensor<3x2xf32>, tensor<3x2xf32>) -> tensor<3x2xf32>
  %8 = forge.concat %4, %7 dim 1 : (tensor<3x2xf32>, tensor<3x2xf32>) -> tensor<3x4xf32>
  %9 = forge.concat %y, %8 dim 1 : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x8xf32>
  func.return %9 : tensor<3x8xf32>
}

// -----

// No sign: a sum of two halves, but no rotation.
// CHECK-LABEL: func.func @no_sign
// CHECK-NOT:     forge.rope
func.func @no_sign(%x : tensor<3x4xf32>, %cos : tensor<3x4xf32>, %sin : tensor<3x4xf32>) -> tensor<3x4xf32> {
  %0 = forge.mul %x, %cos : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %1 = forge.slice %x dim 1 from 0 step 1 : (tensor<3x4xf32>) -> tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>
  %2 = forge.slice %x dim 1 from 2 step 1 : (tensor<3x4xf32>) -> tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>
  %3 = forge.concat %2, %1 dim 1 : (tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>, tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>) -> tensor<3x4xf32>
  %4 = forge.mul %3, %sin : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %5 = forge.add %0, %4 : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  func.return %5 : tensor<3x4xf32>
}

// -----

// Tables that make the result larger than what is rotated.
// CHECK-LABEL: func.func @larger_tables
// CHECK-NOT:     forge.rope
func.func @larger_tables(%x : tensor<1x4xf32>, %cos : tensor<3x4xf32>, %sin : tensor<3x4xf32>) -> tensor<3x4xf32> {
  %0 = forge.mul %x, %cos : (tensor<1x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %1 = forge.slice %x dim 1 from 0 step 1 : (tensor<1x4xf32>) -> tensor<1x2xf32>
  %2 = forge.slice %x dim 1 from 2 step 1 : (tensor<1x4xf32>) -> tensor<1x2xf32>
  %3 = forge.neg %2 : (tensor<1x2xf32>) -> tensor<1x2xf32>
  %4 = forge.concat %3, %1 dim 1 : (tensor<1x2xf32>, tensor<1x2xf32>) -> tensor<1x4xf32>
  %5 = forge.mul %4, %sin : (tensor<1x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %6 = forge.add %0, %5 : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  func.return %6 : tensor<3x4xf32>
}

// -----

// A factor without elements is no number.
// CHECK-LABEL: func.func @empty_factor
// CHECK-NOT:     forge.rope
// CHECK:         func.return
func.func @empty_factor(%x : tensor<0x8xf32>, %c : tensor<0x8xf32>) -> tensor<0x8xf32> {
  %none = forge.constant dense<> : tensor<0x4xf32>
  %a = forge.slice %x dim 1 from 0 step 1 : (tensor<0x8xf32>) -> tensor<0x4xf32>
  %b = forge.slice %x dim 1 from 4 step 1 : (tensor<0x8xf32>) -> tensor<0x4xf32>
  %n = forge.mul %b, %none : (tensor<0x4xf32>, tensor<0x4xf32>) -> tensor<0x4xf32>
  %t = forge.concat %n, %a dim 1 : (tensor<0x4xf32>, tensor<0x4xf32>) -> tensor<0x8xf32>
  %0 = forge.mul %x, %c : (tensor<0x8xf32>, tensor<0x8xf32>) -> tensor<0x8xf32>
  %1 = forge.mul %t, %c : (tensor<0x8xf32>, tensor<0x8xf32>) -> tensor<0x8xf32>
  %2 = forge.add %0, %1 : (tensor<0x8xf32>, tensor<0x8xf32>) -> tensor<0x8xf32>
  func.return %2 : tensor<0x8xf32>
}

// -----

// Both numbers of each pair are written over another value, all of it.
// CHECK-LABEL: func.func @written
// CHECK:         forge.rope %x cos %cos sin %sin interleaved once
func.func @written(%x : tensor<4x3x8xf32>, %o : tensor<4x3x8xf32>, %cos : tensor<3x4xf32>, %sin : tensor<3x4xf32>) -> tensor<4x3x8xf32> {
  %a = forge.slice %x dim 2 from 0 step 2 : (tensor<4x3x8xf32>) -> tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 2]>>
  %b = forge.slice %x dim 2 from 1 step 2 : (tensor<4x3x8xf32>) -> tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 2]>>
  %0 = forge.mul %a, %cos : (tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 2]>>, tensor<3x4xf32>) -> tensor<4x3x4xf32>
  %1 = forge.mul %b, %sin : (tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 2]>>, tensor<3x4xf32>) -> tensor<4x3x4xf32>
  %2 = forge.sub %0, %1 : (tensor<4x3x4xf32>, tensor<4x3x4xf32>) -> tensor<4x3x4xf32>
  %3 = forge.mul %b, %cos : (tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 2]>>, tensor<3x4xf32>) -> tensor<4x3x4xf32>
  %4 = forge.mul %a, %sin : (tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 2]>>, tensor<3x4xf32>) -> tensor<4x3x4xf32>
  %5 = forge.add %3, %4 : (tensor<4x3x4xf32>, tensor<4x3x4xf32>) -> tensor<4x3x4xf32>
  %6 = forge.insert_slice %2 into %o dim 2 from 0 step 2 : (tensor<4x3x4xf32>, tensor<4x3x8xf32>) -> tensor<4x3x8xf32>
  %7 = forge.insert_slice %5 into %6 dim 2 from 1 step 2 : (tensor<4x3x4xf32>, tensor<4x3x8xf32>) -> tensor<4x3x8xf32>
  func.return %7 : tensor<4x3x8xf32>
}

// -----

// The second one is written over the first.
// CHECK-LABEL: func.func @overwritten
// CHECK-NOT:     forge.rope
func.func @overwritten(%x : tensor<4x3x8xf32>, %o : tensor<4x3x8xf32>, %cos : tensor<3x4xf32>, %sin : tensor<3x4xf32>) -> tensor<4x3x8xf32> {
  %a = forge.slice %x dim 2 from 0 step 2 : (tensor<4x3x8xf32>) -> tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 2]>>
  %b = forge.slice %x dim 2 from 1 step 2 : (tensor<4x3x8xf32>) -> tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 2]>>
  %0 = forge.mul %a, %cos : (tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 2]>>, tensor<3x4xf32>) -> tensor<4x3x4xf32>
  %1 = forge.mul %b, %sin : (tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 2]>>, tensor<3x4xf32>) -> tensor<4x3x4xf32>
  %2 = forge.sub %0, %1 : (tensor<4x3x4xf32>, tensor<4x3x4xf32>) -> tensor<4x3x4xf32>
  %3 = forge.mul %b, %cos : (tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 2]>>, tensor<3x4xf32>) -> tensor<4x3x4xf32>
  %4 = forge.mul %a, %sin : (tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 2]>>, tensor<3x4xf32>) -> tensor<4x3x4xf32>
  %5 = forge.add %3, %4 : (tensor<4x3x4xf32>, tensor<4x3x4xf32>) -> tensor<4x3x4xf32>
  %6 = forge.insert_slice %2 into %o dim 2 from 0 step 2 : (tensor<4x3x4xf32>, tensor<4x3x8xf32>) -> tensor<4x3x8xf32>
  %7 = forge.insert_slice %5 into %6 dim 2 from 0 step 2 : (tensor<4x3x4xf32>, tensor<4x3x8xf32>) -> tensor<4x3x8xf32>
  func.return %7 : tensor<4x3x8xf32>
}

// -----

// The rotated features go on in another shape than one row.
// CHECK-LABEL: func.func @as_pairs
// CHECK:         %[[R:.*]] = forge.rope %x cos %cos sin %sin interleaved once
// CHECK-NEXT:    %[[P:.*]] = forge.reshape %[[R]] : {{.*}} -> tensor<4x3x4x2xf32>
// CHECK-NEXT:    forge.reshape %[[P]] : {{.*}} -> tensor<4x3x1x8xf32>
func.func @as_pairs(%x : tensor<4x3x8xf32>, %cos : tensor<3x4xf32>, %sin : tensor<3x4xf32>) -> tensor<4x3x1x8xf32> {
  %a = forge.slice %x dim 2 from 0 step 2 : (tensor<4x3x8xf32>) -> tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 2]>>
  %b = forge.slice %x dim 2 from 1 step 2 : (tensor<4x3x8xf32>) -> tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 2]>>
  %0 = forge.mul %a, %cos : (tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 2]>>, tensor<3x4xf32>) -> tensor<4x3x4xf32>
  %1 = forge.mul %b, %sin : (tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 2]>>, tensor<3x4xf32>) -> tensor<4x3x4xf32>
  %2 = forge.sub %0, %1 : (tensor<4x3x4xf32>, tensor<4x3x4xf32>) -> tensor<4x3x4xf32>
  %3 = forge.mul %b, %cos : (tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 2]>>, tensor<3x4xf32>) -> tensor<4x3x4xf32>
  %4 = forge.mul %a, %sin : (tensor<4x3x4xf32, #forge.tensor<[], strides = [24, 8, 2]>>, tensor<3x4xf32>) -> tensor<4x3x4xf32>
  %5 = forge.add %3, %4 : (tensor<4x3x4xf32>, tensor<4x3x4xf32>) -> tensor<4x3x4xf32>
  %6 = forge.reshape %2 : (tensor<4x3x4xf32>) -> tensor<4x3x4x1xf32>
  %7 = forge.reshape %5 : (tensor<4x3x4xf32>) -> tensor<4x3x4x1xf32>
  %8 = forge.concat %6, %7 dim 3 : (tensor<4x3x4x1xf32>, tensor<4x3x4x1xf32>) -> tensor<4x3x4x2xf32>
  %9 = forge.reshape %8 : (tensor<4x3x4x2xf32>) -> tensor<4x3x1x8xf32>
  func.return %9 : tensor<4x3x1x8xf32>
}

// -----

// Halves that trade places, by a constant row of signs.
// CHECK-LABEL: func.func @signs
// CHECK-NEXT:    forge.rope %x cos %cos sin %sin :
func.func @signs(%x : tensor<3x4xf32>, %cos : tensor<3x4xf32>, %sin : tensor<3x4xf32>) -> tensor<3x4xf32> {
  %s = forge.constant dense<[-1.0, -1.0, 1.0, 1.0]> : tensor<4xf32>
  %0 = forge.mul %x, %cos : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %1 = forge.slice %x dim 1 from 0 step 1 : (tensor<3x4xf32>) -> tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>
  %2 = forge.slice %x dim 1 from 2 step 1 : (tensor<3x4xf32>) -> tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>
  %3 = forge.concat %2, %1 dim 1 : (tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>, tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>) -> tensor<3x4xf32>
  %4 = forge.mul %3, %s : (tensor<3x4xf32>, tensor<4xf32>) -> tensor<3x4xf32>
  %5 = forge.mul %4, %sin : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %6 = forge.add %0, %5 : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  func.return %6 : tensor<3x4xf32>
}

// -----

// The signs are those of no rotation; a row of other numbers is none of signs.
// CHECK-LABEL: func.func @other_signs
// CHECK-NOT:     forge.rope
func.func @other_signs(%x : tensor<3x4xf32>, %cos : tensor<3x4xf32>, %sin : tensor<3x4xf32>) -> (tensor<3x4xf32>, tensor<3x4xf32>) {
  %s = forge.constant dense<[-1.0, 1.0, 1.0, 1.0]> : tensor<4xf32>
  %t = forge.constant dense<[-1.0, -2.0, 1.0, 1.0]> : tensor<4xf32>
  %0 = forge.mul %x, %cos : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %1 = forge.slice %x dim 1 from 0 step 1 : (tensor<3x4xf32>) -> tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>
  %2 = forge.slice %x dim 1 from 2 step 1 : (tensor<3x4xf32>) -> tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>
  %3 = forge.concat %2, %1 dim 1 : (tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>, tensor<3x2xf32, #forge.tensor<[], strides = [4, 1]>>) -> tensor<3x4xf32>
  %4 = forge.mul %3, %s : (tensor<3x4xf32>, tensor<4xf32>) -> tensor<3x4xf32>
  %5 = forge.mul %4, %sin : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %6 = forge.add %0, %5 : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %7 = forge.mul %3, %t : (tensor<3x4xf32>, tensor<4xf32>) -> tensor<3x4xf32>
  %8 = forge.mul %7, %sin : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  %9 = forge.add %0, %8 : (tensor<3x4xf32>, tensor<3x4xf32>) -> tensor<3x4xf32>
  func.return %6, %9 : tensor<3x4xf32>, tensor<3x4xf32>
}
