// RUN: forgec opt %s -p roll-loops --split-input-file | filecheck %s

// DOC: four steps that add the next row become one scan.
// CHECK-LABEL: func.func @last_sum
// CHECK: forge.scan 4 (carried %{{.*}} = %{{.*}} : tensor<1x8xf32>, over %{{.*}} = %{{.*}} dim 0 : tensor<4x8xf32>)
func.func @last_sum(%x: tensor<4x8xf32>, %s: tensor<1x8xf32>) -> tensor<1x8xf32> {
  %a0 = forge.slice %x dim 0 from 0 step 1 : (tensor<4x8xf32>) -> tensor<1x8xf32>
  %s0 = forge.add %s, %a0 : (tensor<1x8xf32>, tensor<1x8xf32>) -> tensor<1x8xf32>
  %a1 = forge.slice %x dim 0 from 1 step 1 : (tensor<4x8xf32>) -> tensor<1x8xf32>
  %s1 = forge.add %s0, %a1 : (tensor<1x8xf32>, tensor<1x8xf32>) -> tensor<1x8xf32>
  %a2 = forge.slice %x dim 0 from 2 step 1 : (tensor<4x8xf32>) -> tensor<1x8xf32>
  %s2 = forge.add %s1, %a2 : (tensor<1x8xf32>, tensor<1x8xf32>) -> tensor<1x8xf32>
  %a3 = forge.slice %x dim 0 from 3 step 1 : (tensor<4x8xf32>) -> tensor<1x8xf32>
  %s3 = forge.add %s2, %a3 : (tensor<1x8xf32>, tensor<1x8xf32>) -> tensor<1x8xf32>
  func.return %s3 : tensor<1x8xf32>
}

// -----

// CHECK-LABEL: func.func @sums
// CHECK: forge.fused "scan"
// CHECK: forge.scan 4 (carried %{{.*}} = %{{.*}} : tensor<8xf32>, over %{{.*}} = %{{.*}} dim 0 : tensor<4x8xf32>)
// CHECK: forge.add
// CHECK-NOT: forge.concat
// CHECK: func.return
func.func @sums(%x: tensor<4x8xf32>, %s: tensor<8xf32>) -> tensor<4x8xf32> {
  %a0 = forge.slice %x dim 0 from 0 step 1 : (tensor<4x8xf32>) -> tensor<1x8xf32>
  %b0 = forge.reshape %a0 : (tensor<1x8xf32>) -> tensor<8xf32>
  %s0 = forge.add %s, %b0 : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %a1 = forge.slice %x dim 0 from 1 step 1 : (tensor<4x8xf32>) -> tensor<1x8xf32>
  %b1 = forge.reshape %a1 : (tensor<1x8xf32>) -> tensor<8xf32>
  %s1 = forge.add %s0, %b1 : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %a2 = forge.slice %x dim 0 from 2 step 1 : (tensor<4x8xf32>) -> tensor<1x8xf32>
  %b2 = forge.reshape %a2 : (tensor<1x8xf32>) -> tensor<8xf32>
  %s2 = forge.add %s1, %b2 : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %a3 = forge.slice %x dim 0 from 3 step 1 : (tensor<4x8xf32>) -> tensor<1x8xf32>
  %b3 = forge.reshape %a3 : (tensor<1x8xf32>) -> tensor<8xf32>
  %s3 = forge.add %s2, %b3 : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %r0 = forge.reshape %s0 : (tensor<8xf32>) -> tensor<1x8xf32>
  %r1 = forge.reshape %s1 : (tensor<8xf32>) -> tensor<1x8xf32>
  %r2 = forge.reshape %s2 : (tensor<8xf32>) -> tensor<1x8xf32>
  %r3 = forge.reshape %s3 : (tensor<8xf32>) -> tensor<1x8xf32>
  %y = forge.concat %r0, %r1, %r2, %r3 dim 0 : (tensor<1x8xf32>, tensor<1x8xf32>, tensor<1x8xf32>, tensor<1x8xf32>) -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}

// -----

// One step takes away instead of adding.
// CHECK-LABEL: func.func @another_step
// CHECK-NOT: forge.scan
// CHECK: forge.sub
func.func @another_step(%x: tensor<4x8xf32>, %s: tensor<1x8xf32>) -> tensor<1x8xf32> {
  %a0 = forge.slice %x dim 0 from 0 step 1 : (tensor<4x8xf32>) -> tensor<1x8xf32>
  %s0 = forge.add %s, %a0 : (tensor<1x8xf32>, tensor<1x8xf32>) -> tensor<1x8xf32>
  %a1 = forge.slice %x dim 0 from 1 step 1 : (tensor<4x8xf32>) -> tensor<1x8xf32>
  %s1 = forge.add %s0, %a1 : (tensor<1x8xf32>, tensor<1x8xf32>) -> tensor<1x8xf32>
  %a2 = forge.slice %x dim 0 from 2 step 1 : (tensor<4x8xf32>) -> tensor<1x8xf32>
  %s2 = forge.sub %s1, %a2 : (tensor<1x8xf32>, tensor<1x8xf32>) -> tensor<1x8xf32>
  %a3 = forge.slice %x dim 0 from 3 step 1 : (tensor<4x8xf32>) -> tensor<1x8xf32>
  %s3 = forge.add %s2, %a3 : (tensor<1x8xf32>, tensor<1x8xf32>) -> tensor<1x8xf32>
  func.return %s3 : tensor<1x8xf32>
}

// -----

// Nothing is passed on.
// CHECK-LABEL: func.func @no_state
// CHECK-NOT: forge.scan
// CHECK: forge.concat
func.func @no_state(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %a0 = forge.slice %x dim 0 from 0 step 1 : (tensor<4x8xf32>) -> tensor<1x8xf32>
  %s0 = forge.exp %a0 : (tensor<1x8xf32>) -> tensor<1x8xf32>
  %a1 = forge.slice %x dim 0 from 1 step 1 : (tensor<4x8xf32>) -> tensor<1x8xf32>
  %s1 = forge.exp %a1 : (tensor<1x8xf32>) -> tensor<1x8xf32>
  %a2 = forge.slice %x dim 0 from 2 step 1 : (tensor<4x8xf32>) -> tensor<1x8xf32>
  %s2 = forge.exp %a2 : (tensor<1x8xf32>) -> tensor<1x8xf32>
  %a3 = forge.slice %x dim 0 from 3 step 1 : (tensor<4x8xf32>) -> tensor<1x8xf32>
  %s3 = forge.exp %a3 : (tensor<1x8xf32>) -> tensor<1x8xf32>
  %y = forge.concat %s0, %s1, %s2, %s3 dim 0 : (tensor<1x8xf32>, tensor<1x8xf32>, tensor<1x8xf32>, tensor<1x8xf32>) -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
