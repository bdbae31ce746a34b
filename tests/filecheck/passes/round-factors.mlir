// RUN: forgec opt %s -p 'round-factors' --split-input-file | filecheck %s
// RUN: forgec opt %s -p 'round-factors{to=float32}' --split-input-file | filecheck %s --check-prefix=OFF

// OFF-NOT: precision "bf16"

// DOC: both factors of a product of float32 are rounded before it, and the launch names the kernel anew.
// CHECK-LABEL: func.func @forward
// CHECK:         tile.launch @[[NAME:kernel_[0-9a-f]+]](
// CHECK:       tile.kernel @[[NAME]](
// CHECK:         %l = tile.load %x[%z, %z]
// CHECK-NEXT:    %[[L:.*]] = arith.truncf %l : tensor<16x32xf32> to tensor<16x32xbf16>
// CHECK:         %r = tile.load %w[%z, %z]
// CHECK-NEXT:    %[[R:.*]] = arith.truncf %r : tensor<32x32xf32> to tensor<32x32xbf16>
// CHECK:         tile.dot %[[L]], %[[R]] into %a precision "bf16" : tensor<16x32xbf16>, tensor<32x32xbf16> -> tensor<16x32xf32>
builtin.module {
  func.func @forward(%x : tensor<16x32xf32>, %w : tensor<32x32xf32>) -> tensor<16x32xf32> {
    %0 = tile.launch @product(%x, %w) [] writes [2] updates [] : (tensor<16x32xf32>, tensor<32x32xf32>) -> tensor<16x32xf32>
    func.return %0 : tensor<16x32xf32>
  }
  tile.kernel @product(%x : !tile.block<tensor<16x32xf32>>, %w : !tile.block<tensor<32x32xf32>>, %y : !tile.block<tensor<16x32xf32>>) writes [2] grid [1] {
    %z = arith.constant 0 : index
    %zero = arith.constant 0.0 : f32
    %a = tile.broadcast %zero along [] : f32 -> tensor<16x32xf32>
    %l = tile.load %x[%z, %z] : !tile.block<tensor<16x32xf32>> -> tensor<16x32xf32>
    %r = tile.load %w[%z, %z] : !tile.block<tensor<32x32xf32>> -> tensor<32x32xf32>
    %d = tile.dot %l, %r into %a : tensor<16x32xf32>, tensor<32x32xf32> -> tensor<16x32xf32>
    tile.store %d, %y[%z, %z] : tensor<16x32xf32>, !tile.block<tensor<16x32xf32>>
    tile.return
  }
}

// -----

// What was extended from bfloat16 is taken as it was, through a transpose and a pad; a factor that is a product's
// result is rounded where it is made, and one that two products read once.
// CHECK:       tile.kernel @{{kernel_[0-9a-f]+}}({{.*}}xbf16>>
// CHECK:         %w16 = tile.load %w[%z, %z]
// CHECK-NEXT:    %[[P:.*]] = tile.pad %w16[%z, %z] within [32, 32] other 0
// CHECK-NEXT:    %[[T:.*]] = tile.transpose %[[P]] [1, 0]
// CHECK-NEXT:    %[[D:.*]] = tile.dot %{{.*}}, %[[T]] into %a precision "bf16"
// CHECK-NEXT:    %[[E:.*]] = arith.truncf %[[D]] : tensor<16x32xf32> to tensor<16x32xbf16>
// CHECK-NEXT:    %[[F:.*]] = tile.dot %[[E]], %[[T]] into %a precision "bf16"
// CHECK:         tile.dot %{{.*}}, %w16 into %[[F]] precision "bf16"
tile.kernel @product(%x : !tile.block<tensor<16x32xf32>>, %w : !tile.block<tensor<32x32xbf16>>, %y : !tile.block<tensor<16x32xf32>>) writes [2] grid [1] {
  %z = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %a = tile.broadcast %zero along [] : f32 -> tensor<16x32xf32>
  %l = tile.load %x[%z, %z] : !tile.block<tensor<16x32xf32>> -> tensor<16x32xf32>
  %w16 = tile.load %w[%z, %z] : !tile.block<tensor<32x32xbf16>> -> tensor<32x32xbf16>
  %w32 = arith.extf %w16 : tensor<32x32xbf16> to tensor<32x32xf32>
  %p = tile.pad %w32[%z, %z] within [32, 32] other 0.0 : tensor<32x32xf32>
  %t = tile.transpose %p [1, 0] : tensor<32x32xf32> -> tensor<32x32xf32>
  %d = tile.dot %l, %t into %a : tensor<16x32xf32>, tensor<32x32xf32> -> tensor<16x32xf32>
  %e = tile.dot %d, %t into %a : tensor<16x32xf32>, tensor<32x32xf32> -> tensor<16x32xf32>
  %d16 = arith.truncf %d : tensor<16x32xf32> to tensor<16x32xbf16>
  %f = tile.dot %d16, %w16 into %e : tensor<16x32xbf16>, tensor<32x32xbf16> -> tensor<16x32xf32>
  tile.store %f, %y[%z, %z] : tensor<16x32xf32>, !tile.block<tensor<16x32xf32>>
  tile.return
}

// -----

// Other dtypes stay: float64, integers and float16; the kernels keep their names.
// CHECK-LABEL: tile.kernel @others(
// CHECK-NOT:     precision
tile.kernel @others(%x : !tile.block<tensor<16x32xf64>>, %i : !tile.block<tensor<16x32xi8>>, %h : !tile.block<tensor<16x32xf16>>, %y : !tile.block<tensor<16x16xf64>>, %j : !tile.block<tensor<16x16xi32>>, %g : !tile.block<tensor<16x16xf32>>) writes [3, 4, 5] grid [1] {
  %z = arith.constant 0 : index
  %c0 = arith.constant 0.0 : f64
  %a0 = tile.broadcast %c0 along [] : f64 -> tensor<16x16xf64>
  %c1 = arith.constant 0 : i32
  %a1 = tile.broadcast %c1 along [] : i32 -> tensor<16x16xi32>
  %c2 = arith.constant 0.0 : f32
  %a2 = tile.broadcast %c2 along [] : f32 -> tensor<16x16xf32>
  %l0 = tile.load %x[%z, %z] : !tile.block<tensor<16x32xf64>> -> tensor<16x32xf64>
  %l1 = tile.load %i[%z, %z] : !tile.block<tensor<16x32xi8>> -> tensor<16x32xi8>
  %l2 = tile.load %h[%z, %z] : !tile.block<tensor<16x32xf16>> -> tensor<16x32xf16>
  %d0 = tile.dot %l0, %l0 into %a0 transposed : tensor<16x32xf64>, tensor<16x32xf64> -> tensor<16x16xf64>
  %d1 = tile.dot %l1, %l1 into %a1 transposed : tensor<16x32xi8>, tensor<16x32xi8> -> tensor<16x16xi32>
  %d2 = tile.dot %l2, %l2 into %a2 transposed : tensor<16x32xf16>, tensor<16x32xf16> -> tensor<16x16xf32>
  tile.store %d0, %y[%z, %z] : tensor<16x16xf64>, !tile.block<tensor<16x16xf64>>
  tile.store %d1, %j[%z, %z] : tensor<16x16xi32>, !tile.block<tensor<16x16xi32>>
  tile.store %d2, %g[%z, %z] : tensor<16x16xf32>, !tile.block<tensor<16x16xf32>>
  tile.return
}
