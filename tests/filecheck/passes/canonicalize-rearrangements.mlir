// RUN: forgec opt %s -p canonicalize --split-input-file | filecheck %s

// Batch and heads merged, turned and split again, as torch.nn.MultiheadAttention does: nothing is merged.
// CHECK-LABEL: func.func @merged_and_split
// CHECK-NEXT:    %[[R:.*]] = forge.reshape %x : (tensor<9x2x64xf32>) -> tensor<9x2x4x16xf32>
// CHECK-NEXT:    %[[T:.*]] = forge.transpose %[[R]] [1, 2, 0, 3] : {{.*}} -> tensor<2x4x9x16xf32, #forge.tensor<[], strides = [64, 16, 128, 1]>>
// CHECK-NEXT:    func.return %[[T]]
func.func @merged_and_split(%x: tensor<9x2x64xf32>) -> tensor<2x4x9x16xf32, #forge.tensor<[], strides = [64, 16, 128, 1]>> {
  %0 = forge.reshape %x : (tensor<9x2x64xf32>) -> tensor<9x8x16xf32>
  %1 = forge.transpose %0 [1, 0, 2] : (tensor<9x8x16xf32>) -> tensor<8x9x16xf32, #forge.tensor<[], strides = [16, 128, 1]>>
  %2 = forge.reshape %1 : (tensor<8x9x16xf32, #forge.tensor<[], strides = [16, 128, 1]>>) -> tensor<2x4x9x16xf32, #forge.tensor<[], strides = [64, 16, 128, 1]>>
  func.return %2 : tensor<2x4x9x16xf32, #forge.tensor<[], strides = [64, 16, 128, 1]>>
}

// -----

// Symbolic extents, and a dimension of extent 1 that comes and goes.
// CHECK-LABEL: func.func @symbolic
// CHECK-NEXT:    %[[R:.*]] = forge.reshape %x : {{.*}} -> tensor<?x?x4x16xf32, #forge.tensor<[s0, s1]>>
// CHECK-NEXT:    %[[T:.*]] = forge.transpose %[[R]] [1, 2, 0, 3]
// CHECK-NEXT:    func.return %[[T]]
forge.symbol @s0 "rows" min 1 max 64
forge.symbol @s1 "batch" min 1 max 64
func.func @symbolic(%x: tensor<?x?x64xf32, #forge.tensor<[s0, s1]>>) -> tensor<?x4x?x16xf32, #forge.tensor<[s1, s0], strides = [64, 16, s1 * 64, 1]>> {
  %0 = forge.reshape %x : (tensor<?x?x64xf32, #forge.tensor<[s0, s1]>>) -> tensor<1x?x?x16xf32, #forge.tensor<[s0, s1 * 4]>>
  %1 = forge.transpose %0 [0, 2, 1, 3] : (tensor<1x?x?x16xf32, #forge.tensor<[s0, s1 * 4]>>) -> tensor<1x?x?x16xf32, #forge.tensor<[s1 * 4, s0], strides = [s0 * s1 * 64, 16, s1 * 64, 1]>>
  %2 = forge.reshape %1 : (tensor<1x?x?x16xf32, #forge.tensor<[s1 * 4, s0], strides = [s0 * s1 * 64, 16, s1 * 64, 1]>>) -> tensor<?x4x?x16xf32, #forge.tensor<[s1, s0], strides = [64, 16, s1 * 64, 1]>>
  func.return %2 : tensor<?x4x?x16xf32, #forge.tensor<[s1, s0], strides = [64, 16, s1 * 64, 1]>>
}

// -----

// Turned, reshaped, and turned back: one reshape.
// CHECK-LABEL: func.func @turned_back
// CHECK-NEXT:    %[[R:.*]] = forge.reshape %x : (tensor<6x8xf32>) -> tensor<6x2x4xf32>
// CHECK-NEXT:    func.return %[[R]]
func.func @turned_back(%x: tensor<6x8xf32>) -> tensor<6x2x4xf32> {
  %0 = forge.transpose %x [1, 0] : (tensor<6x8xf32>) -> tensor<8x6xf32, #forge.tensor<[], strides = [1, 8]>>
  %1 = forge.reshape %0 : (tensor<8x6xf32, #forge.tensor<[], strides = [1, 8]>>) -> tensor<2x4x6xf32, #forge.tensor<[], strides = [4, 1, 8]>>
  %2 = forge.transpose %1 [2, 0, 1] : (tensor<2x4x6xf32, #forge.tensor<[], strides = [4, 1, 8]>>) -> tensor<6x2x4xf32>
  func.return %2 : tensor<6x2x4xf32>
}

// -----

// Dimensions that are cut otherwise than they were put together stay; so does a copy that others read.
// CHECK-LABEL: func.func @stays
// CHECK-NEXT:    forge.transpose
// CHECK-NEXT:    forge.reshape
// CHECK-NEXT:    forge.transpose
// CHECK-NEXT:    forge.reshape %y
// CHECK-NEXT:    forge.transpose
// CHECK-NEXT:    forge.reshape
// CHECK-NEXT:    func.return
func.func @stays(%x: tensor<4x6xf32>, %y: tensor<9x2x64xf32, #forge.tensor<[], strides = [192, 96, 1]>>) -> (tensor<6x4xf32, #forge.tensor<[], strides = [1, 6]>>, tensor<2x4x9x16xf32, #forge.tensor<[], strides = [64, 16, 128, 1]>>, tensor<9x8x16xf32>) {
  %0 = forge.transpose %x [1, 0] : (tensor<4x6xf32>) -> tensor<6x4xf32, #forge.tensor<[], strides = [1, 6]>>
  %1 = forge.reshape %0 : (tensor<6x4xf32, #forge.tensor<[], strides = [1, 6]>>) -> tensor<4x6xf32>
  %2 = forge.transpose %1 [1, 0] : (tensor<4x6xf32>) -> tensor<6x4xf32, #forge.tensor<[], strides = [1, 6]>>
  %3 = forge.reshape %y : (tensor<9x2x64xf32, #forge.tensor<[], strides = [192, 96, 1]>>) -> tensor<9x8x16xf32>
  %4 = forge.transpose %3 [1, 0, 2] : (tensor<9x8x16xf32>) -> tensor<8x9x16xf32, #forge.tensor<[], strides = [16, 128, 1]>>
  %5 = forge.reshape %4 : (tensor<8x9x16xf32, #forge.tensor<[], strides = [16, 128, 1]>>) -> tensor<2x4x9x16xf32, #forge.tensor<[], strides = [64, 16, 128, 1]>>
  func.return %2, %5, %3 : tensor<6x4xf32, #forge.tensor<[], strides = [1, 6]>>, tensor<2x4x9x16xf32, #forge.tensor<[], strides = [64, 16, 128, 1]>>, tensor<9x8x16xf32>
}

// -----

// Constant indices that ascend evenly are slices; negative ones count from the end; an index of rank 2 gives its shape.
// CHECK-LABEL: func.func @places
// CHECK:         %[[S:.*]] = forge.slice %x dim 1 from 1 step 2 : (tensor<4x6xf32>) -> tensor<4x2xf32, #forge.tensor<[], strides = [6, 2]>>
// CHECK-NEXT:    %[[A:.*]] = forge.copy %[[S]]
// CHECK-NEXT:    forge.neg %[[A]]
// CHECK:         %[[B:.*]] = forge.slice %x dim 0 from 2 step 1 : (tensor<4x6xf32>) -> tensor<2x6xf32>
// CHECK-NEXT:    forge.neg %[[B]]
// CHECK:         %[[B:.*]] = forge.slice %x dim 0 from 2 step 1 : (tensor<4x6xf32>) -> tensor<2x6xf32>
// CHECK-NEXT:    %[[C:.*]] = forge.reshape %[[B]] : (tensor<2x6xf32>) -> tensor<2x1x6xf32>
// CHECK-NEXT:    forge.neg %[[C]]
func.func @places(%x: tensor<4x6xf32>) -> (tensor<4x2xf32>, tensor<2x6xf32>, tensor<2x1x6xf32>) {
  %i = forge.constant dense<[1, 3]> : tensor<2xi64>
  %0 = forge.index_select %x, %i dim 1 : (tensor<4x6xf32>, tensor<2xi64>) -> tensor<4x2xf32>
  %a = forge.neg %0 : (tensor<4x2xf32>) -> tensor<4x2xf32>
  %j = forge.constant dense<[-2, -1]> : tensor<2xi64>
  %1 = forge.index %x at %j dims [0] : (tensor<4x6xf32>, tensor<2xi64>) -> tensor<2x6xf32>
  %b = forge.neg %1 : (tensor<2x6xf32>) -> tensor<2x6xf32>
  %k = forge.constant dense<[[2], [3]]> : tensor<2x1xi64>
  %2 = forge.index %x at %k dims [0] : (tensor<4x6xf32>, tensor<2x1xi64>) -> tensor<2x1x6xf32>
  %c = forge.neg %2 : (tensor<2x1x6xf32>) -> tensor<2x1x6xf32>
  func.return %a, %b, %c : tensor<4x2xf32>, tensor<2x6xf32>, tensor<2x1x6xf32>
}

// -----

// Places in another order, twice, outside of the dimension (an error when it is met), of two dimensions; a result of the
// function, which shares no memory with the argument.
// CHECK-LABEL: func.func @no_slices
// CHECK-COUNT-5: forge.index %x
func.func @no_slices(%x: tensor<4x6xf32>) -> (tensor<4x3xf32>, tensor<4x2xf32>, tensor<2x6xf32>, tensor<2xf32>, tensor<2x6xf32>) {
  %i = forge.constant dense<[0, 2, 1]> : tensor<3xi64>
  %0 = forge.index %x at %i dims [1] : (tensor<4x6xf32>, tensor<3xi64>) -> tensor<4x3xf32>
  %a = forge.neg %0 : (tensor<4x3xf32>) -> tensor<4x3xf32>
  %j = forge.constant dense<[2, 2]> : tensor<2xi64>
  %1 = forge.index %x at %j dims [1] : (tensor<4x6xf32>, tensor<2xi64>) -> tensor<4x2xf32>
  %b = forge.neg %1 : (tensor<4x2xf32>) -> tensor<4x2xf32>
  %k = forge.constant dense<[3, 4]> : tensor<2xi64>
  %2 = forge.index %x at %k dims [0] : (tensor<4x6xf32>, tensor<2xi64>) -> tensor<2x6xf32>
  %c = forge.neg %2 : (tensor<2x6xf32>) -> tensor<2x6xf32>
  %l = forge.constant dense<[0, 1]> : tensor<2xi64>
  %3 = forge.index %x at %l, %l dims [0, 1] : (tensor<4x6xf32>, tensor<2xi64>, tensor<2xi64>) -> tensor<2xf32>
  %d = forge.neg %3 : (tensor<2xf32>) -> tensor<2xf32>
  %4 = forge.index %x at %l dims [0] : (tensor<4x6xf32>, tensor<2xi64>) -> tensor<2x6xf32>
  func.return %a, %b, %c, %d, %4 : tensor<4x3xf32>, tensor<4x2xf32>, tensor<2x6xf32>, tensor<2xf32>, tensor<2x6xf32>
}
