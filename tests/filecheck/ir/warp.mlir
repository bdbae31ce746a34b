// RUN: forgec opt %s | forgec opt - | filecheck %s

// CHECK-LABEL: warp.kernel @groups
// CHECK-SAME:    writes [1] grid [2] schedule #warp.schedule<ii = 512, bound = 500, binding = "unit tensor_core", stages = 2, status = optimal>
// CHECK:         %[[A:.*]] = aref.create depth 2 readers 2 in "shared" : !aref.ring<tensor<16x16xf32>>
// CHECK:         %[[S:.*]] = aref.create depth 1 in "tensor" : !aref.ring<tensor<16x16xf32>>
// CHECK:         warp.group "load" warps 1 registers 24 {
// CHECK-NEXT:      %[[V:.*]], %[[T:.*]] = warp.async_load %x[%z, %z] other -inf in_bounds [0] in "shared" : !tile.block<tensor<32x16xf32>> -> tensor<16x16xf32>
// CHECK-NEXT:      aref.put %[[A]][%z], %[[V]] after %[[T]] : !aref.ring<tensor<16x16xf32>>
// CHECK-NEXT:    }
// CHECK:         warp.group "mma" warps 4 registers 64 {
// CHECK:           %[[G:.*]] = aref.get %[[A]][%z] : !aref.ring<tensor<16x16xf32>>
// CHECK:           %[[P:.*]], %[[U:.*]] = warp.mma %[[G]], %[[G]] into %{{.*}} transposed precision "tf32" in "tensor" : tensor<16x16xf32>, tensor<16x16xf32> -> tensor<16x16xf32>
// CHECK-NEXT:      aref.consumed %[[A]][%z] after %[[U]] : !aref.ring<tensor<16x16xf32>>
// CHECK-NEXT:      warp.wait %[[U]]
// CHECK-NEXT:      aref.put %[[S]][%z], %[[P]] : !aref.ring<tensor<16x16xf32>>
// CHECK:         warp.group "store" warps 4 registers 240 {
// CHECK:           %{{.*}} = warp.copy %{{.*}} : tensor<16x16xf32>
warp.kernel @groups(%x: !tile.block<tensor<32x16xf32>>, %y: !tile.block<tensor<32x16xf32>>) writes [1] grid [2] schedule #warp.schedule<ii = 512, bound = 500, binding = "unit tensor_core", stages = 2, status = optimal> {
  %p = tile.program_id 0
  %z = tile.index 0() : () -> index
  %a = aref.create depth 2 readers 2 in "shared" : !aref.ring<tensor<16x16xf32>>
  %s = aref.create depth 1 in "tensor" : !aref.ring<tensor<16x16xf32>>
  warp.group "load" warps 1 registers 24 {
    %v, %t = warp.async_load %x[%z, %z] other -inf in_bounds [0] in "shared" : !tile.block<tensor<32x16xf32>> -> tensor<16x16xf32>
    aref.put %a[%z], %v after %t : !aref.ring<tensor<16x16xf32>>
  }
  warp.group "mma" warps 4 registers 64 {
    %zero = warp.poison : tensor<16x16xf32>
    %done = warp.done
    warp.wait %done
    %g = aref.get %a[%z] : !aref.ring<tensor<16x16xf32>>
    %m, %u = warp.mma %g, %g into %zero transposed precision "tf32" in "tensor" : tensor<16x16xf32>, tensor<16x16xf32> -> tensor<16x16xf32>
    aref.consumed %a[%z] after %u : !aref.ring<tensor<16x16xf32>>
    warp.wait %u
    aref.put %s[%z], %m : !aref.ring<tensor<16x16xf32>>
  }
  warp.group "store" warps 4 registers 240 {
    %g = aref.get %s[%z] : !aref.ring<tensor<16x16xf32>>
    %h = aref.get %a[%z] : !aref.ring<tensor<16x16xf32>>
    aref.consumed %a[%z] : !aref.ring<tensor<16x16xf32>>
    %c = warp.copy %g : tensor<16x16xf32>
    aref.consumed %s[%z] : !aref.ring<tensor<16x16xf32>>
    tile.store %c, %y[%z, %z] : tensor<16x16xf32>, !tile.block<tensor<32x16xf32>>
  }
  tile.return
}
