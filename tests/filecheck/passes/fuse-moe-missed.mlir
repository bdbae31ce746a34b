// RUN: forgec opt %s -p 'fuse-moe,dce' --split-input-file --verify-diagnostics --remarks=missed | filecheck %s

// A norm stands between the last product and the weights.
// CHECK-LABEL: func.func @norm_of_results(
// CHECK-NOT:     forge.moe
// CHECK:         func.return
func.func @norm_of_results(%x : tensor<5x8xf32>, %i : tensor<5x2xi64>, %w : tensor<5x2xf32>, %up : tensor<4x24x8xf32>, %down : tensor<4x8x12xf32>) -> tensor<5x8xf32> {
  %flat = forge.reshape %i : (tensor<5x2xi64>) -> tensor<10xi64>
  %ids, %order = forge.sort %flat dim 0 : (tensor<10xi64>) -> (tensor<10xi64>, tensor<10xi64>)
  %row = forge.floor_div %order, 2 : (tensor<10xi64>) -> tensor<10xi64>
  %rows = forge.index %x at %row dims [0] : (tensor<5x8xf32>, tensor<10xi64>) -> tensor<10x8xf32>
  %wflat = forge.reshape %w : (tensor<5x2xf32>) -> tensor<10xf32>
  %ws = forge.index %wflat at %order dims [0] : (tensor<10xf32>, tensor<10xi64>) -> tensor<10xf32>
  %float = forge.cast %ids : (tensor<10xi64>) -> tensor<10xf32>
  %histc = forge.aten "aten::histc"(%float, 4, 0, 3) : (tensor<10xf32>) -> tensor<4xf32>
  %counts = forge.cast %histc : (tensor<4xf32>) -> tensor<4xi32>
  %ends = forge.cumsum %counts dim 0 : (tensor<4xi32>) -> tensor<4xi32>
  %upt = forge.transpose %up [0, 2, 1] : (tensor<4x24x8xf32>) -> tensor<4x8x24xf32, #forge.tensor<[], strides = [192, 1, 8]>>
  %both = forge.grouped_matmul %rows, %upt ends %ends : (tensor<10x8xf32>, tensor<4x8x24xf32, #forge.tensor<[], strides = [192, 1, 8]>>, tensor<4xi32>) -> tensor<10x24xf32>
  %g = forge.slice %both dim 1 from 0 step 1 : (tensor<10x24xf32>) -> tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>
  %u = forge.slice %both dim 1 from 12 step 1 : (tensor<10x24xf32>) -> tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>
  %h = forge.glu %g, %u activation "silu" : (tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>, tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>) -> tensor<10x12xf32>
  %downt = forge.transpose %down [0, 2, 1] : (tensor<4x8x12xf32>) -> tensor<4x12x8xf32, #forge.tensor<[], strides = [96, 1, 12]>>
  // expected-remark@+1 {{no mixture of experts was made: after the products no weighted sum over the experts of each row was found: forge.rms_norm follows}}
  %y = forge.grouped_matmul %h, %downt ends %ends : (tensor<10x12xf32>, tensor<4x12x8xf32, #forge.tensor<[], strides = [96, 1, 12]>>, tensor<4xi32>) -> tensor<10x8xf32>
  %n = forge.rms_norm %y axes 1 eps 1.0e-05 : (tensor<10x8xf32>) -> tensor<10x8xf32>
  %wcol = forge.reshape %ws : (tensor<10xf32>) -> tensor<10x1xf32>
  %weighted = forge.mul %n, %wcol : (tensor<10x8xf32>, tensor<10x1xf32>) -> tensor<10x8xf32>
  %numbers = forge.iota from 0 step 1 : tensor<10xi64>
  %anything = forge.aten "aten::empty_like"(%order) : (tensor<10xi64>) -> tensor<10xi64>
  %inverse = forge.index_put %anything, %numbers at %order dims [0] : (tensor<10xi64>, tensor<10xi64>, tensor<10xi64>) -> tensor<10xi64>
  %back = forge.index %weighted at %inverse dims [0] : (tensor<10x8xf32>, tensor<10xi64>) -> tensor<10x8xf32>
  %choices = forge.reshape %back : (tensor<10x8xf32>) -> tensor<5x2x8xf32>
  %sum = forge.sum %choices over [1] : (tensor<5x2x8xf32>) -> tensor<5x8xf32>
  func.return %sum : tensor<5x8xf32>
}

// -----

// The groups end where some other choice of experts has them end.
// CHECK-LABEL: func.func @other_ends(
// CHECK-NOT:     forge.moe
// CHECK:         func.return
func.func @other_ends(%x : tensor<5x8xf32>, %i : tensor<5x2xi64>, %w : tensor<5x2xf32>, %up : tensor<4x24x8xf32>, %down : tensor<4x8x12xf32>, %ends : tensor<4xi32>) -> tensor<5x8xf32> {
  %flat = forge.reshape %i : (tensor<5x2xi64>) -> tensor<10xi64>
  %ids, %order = forge.sort %flat dim 0 : (tensor<10xi64>) -> (tensor<10xi64>, tensor<10xi64>)
  %row = forge.floor_div %order, 2 : (tensor<10xi64>) -> tensor<10xi64>
  %rows = forge.index %x at %row dims [0] : (tensor<5x8xf32>, tensor<10xi64>) -> tensor<10x8xf32>
  %wflat = forge.reshape %w : (tensor<5x2xf32>) -> tensor<10xf32>
  %ws = forge.index %wflat at %order dims [0] : (tensor<10xf32>, tensor<10xi64>) -> tensor<10xf32>
  %upt = forge.transpose %up [0, 2, 1] : (tensor<4x24x8xf32>) -> tensor<4x8x24xf32, #forge.tensor<[], strides = [192, 1, 8]>>
  // expected-remark@+1 {{no mixture of experts was made: the ends of the groups are not the running sum of how often each expert was chosen}}
  %both = forge.grouped_matmul %rows, %upt ends %ends : (tensor<10x8xf32>, tensor<4x8x24xf32, #forge.tensor<[], strides = [192, 1, 8]>>, tensor<4xi32>) -> tensor<10x24xf32>
  %g = forge.slice %both dim 1 from 0 step 1 : (tensor<10x24xf32>) -> tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>
  %u = forge.slice %both dim 1 from 12 step 1 : (tensor<10x24xf32>) -> tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>
  %h = forge.glu %g, %u activation "silu" : (tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>, tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>) -> tensor<10x12xf32>
  %downt = forge.transpose %down [0, 2, 1] : (tensor<4x8x12xf32>) -> tensor<4x12x8xf32, #forge.tensor<[], strides = [96, 1, 12]>>
  // expected-remark@+1 {{no mixture of experts was made: the ends of the groups are not the running sum of how often each expert was chosen}}
  %y = forge.grouped_matmul %h, %downt ends %ends : (tensor<10x12xf32>, tensor<4x12x8xf32, #forge.tensor<[], strides = [96, 1, 12]>>, tensor<4xi32>) -> tensor<10x8xf32>
  %wcol = forge.reshape %ws : (tensor<10xf32>) -> tensor<10x1xf32>
  %weighted = forge.mul %y, %wcol : (tensor<10x8xf32>, tensor<10x1xf32>) -> tensor<10x8xf32>
  %numbers = forge.iota from 0 step 1 : tensor<10xi64>
  %anything = forge.aten "aten::empty_like"(%order) : (tensor<10xi64>) -> tensor<10xi64>
  %inverse = forge.index_put %anything, %numbers at %order dims [0] : (tensor<10xi64>, tensor<10xi64>, tensor<10xi64>) -> tensor<10xi64>
  %back = forge.index %weighted at %inverse dims [0] : (tensor<10x8xf32>, tensor<10xi64>) -> tensor<10x8xf32>
  %choices = forge.reshape %back : (tensor<10x8xf32>) -> tensor<5x2x8xf32>
  %sum = forge.sum %choices over [1] : (tensor<5x2x8xf32>) -> tensor<5x8xf32>
  func.return %sum : tensor<5x8xf32>
}

// -----

// The results are taken by the order itself, not by its inverse.
// CHECK-LABEL: func.func @not_sorted_back(
// CHECK-NOT:     forge.moe
// CHECK:         func.return
func.func @not_sorted_back(%x : tensor<5x8xf32>, %i : tensor<5x2xi64>, %w : tensor<5x2xf32>, %up : tensor<4x24x8xf32>, %down : tensor<4x8x12xf32>) -> tensor<5x8xf32> {
  %flat = forge.reshape %i : (tensor<5x2xi64>) -> tensor<10xi64>
  %ids, %order = forge.sort %flat dim 0 : (tensor<10xi64>) -> (tensor<10xi64>, tensor<10xi64>)
  %row = forge.floor_div %order, 2 : (tensor<10xi64>) -> tensor<10xi64>
  %rows = forge.index %x at %row dims [0] : (tensor<5x8xf32>, tensor<10xi64>) -> tensor<10x8xf32>
  %wflat = forge.reshape %w : (tensor<5x2xf32>) -> tensor<10xf32>
  %ws = forge.index %wflat at %order dims [0] : (tensor<10xf32>, tensor<10xi64>) -> tensor<10xf32>
  %float = forge.cast %ids : (tensor<10xi64>) -> tensor<10xf32>
  %histc = forge.aten "aten::histc"(%float, 4, 0, 3) : (tensor<10xf32>) -> tensor<4xf32>
  %counts = forge.cast %histc : (tensor<4xf32>) -> tensor<4xi32>
  %ends = forge.cumsum %counts dim 0 : (tensor<4xi32>) -> tensor<4xi32>
  %upt = forge.transpose %up [0, 2, 1] : (tensor<4x24x8xf32>) -> tensor<4x8x24xf32, #forge.tensor<[], strides = [192, 1, 8]>>
  %both = forge.grouped_matmul %rows, %upt ends %ends : (tensor<10x8xf32>, tensor<4x8x24xf32, #forge.tensor<[], strides = [192, 1, 8]>>, tensor<4xi32>) -> tensor<10x24xf32>
  %g = forge.slice %both dim 1 from 0 step 1 : (tensor<10x24xf32>) -> tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>
  %u = forge.slice %both dim 1 from 12 step 1 : (tensor<10x24xf32>) -> tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>
  %h = forge.glu %g, %u activation "silu" : (tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>, tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>) -> tensor<10x12xf32>
  %downt = forge.transpose %down [0, 2, 1] : (tensor<4x8x12xf32>) -> tensor<4x12x8xf32, #forge.tensor<[], strides = [96, 1, 12]>>
  // expected-remark@+1 {{no mixture of experts was made: after the products no weighted sum over the experts of each row was found: forge.index follows}}
  %y = forge.grouped_matmul %h, %downt ends %ends : (tensor<10x12xf32>, tensor<4x12x8xf32, #forge.tensor<[], strides = [96, 1, 12]>>, tensor<4xi32>) -> tensor<10x8xf32>
  %wcol = forge.reshape %ws : (tensor<10xf32>) -> tensor<10x1xf32>
  %weighted = forge.mul %y, %wcol : (tensor<10x8xf32>, tensor<10x1xf32>) -> tensor<10x8xf32>
  %numbers = forge.iota from 0 step 1 : tensor<10xi64>
  %anything = forge.aten "aten::empty_like"(%order) : (tensor<10xi64>) -> tensor<10xi64>
  %inverse = forge.index_put %anything, %numbers at %order dims [0] : (tensor<10xi64>, tensor<10xi64>, tensor<10xi64>) -> tensor<10xi64>
  %back = forge.index %weighted at %order dims [0] : (tensor<10x8xf32>, tensor<10xi64>) -> tensor<10x8xf32>
  %choices = forge.reshape %back : (tensor<10x8xf32>) -> tensor<5x2x8xf32>
  %sum = forge.sum %choices over [1] : (tensor<5x2x8xf32>) -> tensor<5x8xf32>
  func.return %sum : tensor<5x8xf32>
}

// -----

// The weights are those of other pairs: they were not sorted.
// CHECK-LABEL: func.func @weights_not_sorted(
// CHECK-NOT:     forge.moe
// CHECK:         func.return
func.func @weights_not_sorted(%x : tensor<5x8xf32>, %i : tensor<5x2xi64>, %w : tensor<5x2xf32>, %up : tensor<4x24x8xf32>, %down : tensor<4x8x12xf32>) -> tensor<5x8xf32> {
  %flat = forge.reshape %i : (tensor<5x2xi64>) -> tensor<10xi64>
  %ids, %order = forge.sort %flat dim 0 : (tensor<10xi64>) -> (tensor<10xi64>, tensor<10xi64>)
  %row = forge.floor_div %order, 2 : (tensor<10xi64>) -> tensor<10xi64>
  %rows = forge.index %x at %row dims [0] : (tensor<5x8xf32>, tensor<10xi64>) -> tensor<10x8xf32>
  %wflat = forge.reshape %w : (tensor<5x2xf32>) -> tensor<10xf32>
  %ws = forge.index %wflat at %order dims [0] : (tensor<10xf32>, tensor<10xi64>) -> tensor<10xf32>
  %float = forge.cast %ids : (tensor<10xi64>) -> tensor<10xf32>
  %histc = forge.aten "aten::histc"(%float, 4, 0, 3) : (tensor<10xf32>) -> tensor<4xf32>
  %counts = forge.cast %histc : (tensor<4xf32>) -> tensor<4xi32>
  %ends = forge.cumsum %counts dim 0 : (tensor<4xi32>) -> tensor<4xi32>
  %upt = forge.transpose %up [0, 2, 1] : (tensor<4x24x8xf32>) -> tensor<4x8x24xf32, #forge.tensor<[], strides = [192, 1, 8]>>
  %both = forge.grouped_matmul %rows, %upt ends %ends : (tensor<10x8xf32>, tensor<4x8x24xf32, #forge.tensor<[], strides = [192, 1, 8]>>, tensor<4xi32>) -> tensor<10x24xf32>
  %g = forge.slice %both dim 1 from 0 step 1 : (tensor<10x24xf32>) -> tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>
  %u = forge.slice %both dim 1 from 12 step 1 : (tensor<10x24xf32>) -> tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>
  %h = forge.glu %g, %u activation "silu" : (tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>, tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>) -> tensor<10x12xf32>
  %downt = forge.transpose %down [0, 2, 1] : (tensor<4x8x12xf32>) -> tensor<4x12x8xf32, #forge.tensor<[], strides = [96, 1, 12]>>
  // expected-remark@+1 {{no mixture of experts was made: after the products no weighted sum over the experts of each row was found: forge.mul follows}}
  %y = forge.grouped_matmul %h, %downt ends %ends : (tensor<10x12xf32>, tensor<4x12x8xf32, #forge.tensor<[], strides = [96, 1, 12]>>, tensor<4xi32>) -> tensor<10x8xf32>
  %wcol = forge.reshape %wflat : (tensor<10xf32>) -> tensor<10x1xf32>
  %weighted = forge.mul %y, %wcol : (tensor<10x8xf32>, tensor<10x1xf32>) -> tensor<10x8xf32>
  %numbers = forge.iota from 0 step 1 : tensor<10xi64>
  %anything = forge.aten "aten::empty_like"(%order) : (tensor<10xi64>) -> tensor<10xi64>
  %inverse = forge.index_put %anything, %numbers at %order dims [0] : (tensor<10xi64>, tensor<10xi64>, tensor<10xi64>) -> tensor<10xi64>
  %back = forge.index %weighted at %inverse dims [0] : (tensor<10x8xf32>, tensor<10xi64>) -> tensor<10x8xf32>
  %choices = forge.reshape %back : (tensor<10x8xf32>) -> tensor<5x2x8xf32>
  %sum = forge.sum %choices over [1] : (tensor<5x2x8xf32>) -> tensor<5x8xf32>
  func.return %sum : tensor<5x8xf32>
}

// -----

// Three experts are counted where there are four.
// CHECK-LABEL: func.func @miscounted(
// CHECK-NOT:     forge.moe
// CHECK:         func.return
func.func @miscounted(%x : tensor<5x8xf32>, %i : tensor<5x2xi64>, %w : tensor<5x2xf32>, %up : tensor<4x24x8xf32>, %down : tensor<4x8x12xf32>) -> tensor<5x8xf32> {
  %flat = forge.reshape %i : (tensor<5x2xi64>) -> tensor<10xi64>
  %ids, %order = forge.sort %flat dim 0 : (tensor<10xi64>) -> (tensor<10xi64>, tensor<10xi64>)
  %row = forge.floor_div %order, 2 : (tensor<10xi64>) -> tensor<10xi64>
  %rows = forge.index %x at %row dims [0] : (tensor<5x8xf32>, tensor<10xi64>) -> tensor<10x8xf32>
  %wflat = forge.reshape %w : (tensor<5x2xf32>) -> tensor<10xf32>
  %ws = forge.index %wflat at %order dims [0] : (tensor<10xf32>, tensor<10xi64>) -> tensor<10xf32>
  %float = forge.cast %ids : (tensor<10xi64>) -> tensor<10xf32>
  %histc = forge.aten "aten::histc"(%float, 4, 0, 4) : (tensor<10xf32>) -> tensor<4xf32>
  %counts = forge.cast %histc : (tensor<4xf32>) -> tensor<4xi32>
  %ends = forge.cumsum %counts dim 0 : (tensor<4xi32>) -> tensor<4xi32>
  %upt = forge.transpose %up [0, 2, 1] : (tensor<4x24x8xf32>) -> tensor<4x8x24xf32, #forge.tensor<[], strides = [192, 1, 8]>>
  // expected-remark@+1 {{no mixture of experts was made: the ends of the groups are not the running sum of how often each expert was chosen}}
  %both = forge.grouped_matmul %rows, %upt ends %ends : (tensor<10x8xf32>, tensor<4x8x24xf32, #forge.tensor<[], strides = [192, 1, 8]>>, tensor<4xi32>) -> tensor<10x24xf32>
  %g = forge.slice %both dim 1 from 0 step 1 : (tensor<10x24xf32>) -> tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>
  %u = forge.slice %both dim 1 from 12 step 1 : (tensor<10x24xf32>) -> tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>
  %h = forge.glu %g, %u activation "silu" : (tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>, tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>) -> tensor<10x12xf32>
  %downt = forge.transpose %down [0, 2, 1] : (tensor<4x8x12xf32>) -> tensor<4x12x8xf32, #forge.tensor<[], strides = [96, 1, 12]>>
  // expected-remark@+1 {{no mixture of experts was made: the ends of the groups are not the running sum of how often each expert was chosen}}
  %y = forge.grouped_matmul %h, %downt ends %ends : (tensor<10x12xf32>, tensor<4x12x8xf32, #forge.tensor<[], strides = [96, 1, 12]>>, tensor<4xi32>) -> tensor<10x8xf32>
  %wcol = forge.reshape %ws : (tensor<10xf32>) -> tensor<10x1xf32>
  %weighted = forge.mul %y, %wcol : (tensor<10x8xf32>, tensor<10x1xf32>) -> tensor<10x8xf32>
  %numbers = forge.iota from 0 step 1 : tensor<10xi64>
  %anything = forge.aten "aten::empty_like"(%order) : (tensor<10xi64>) -> tensor<10xi64>
  %inverse = forge.index_put %anything, %numbers at %order dims [0] : (tensor<10xi64>, tensor<10xi64>, tensor<10xi64>) -> tensor<10xi64>
  %back = forge.index %weighted at %inverse dims [0] : (tensor<10x8xf32>, tensor<10xi64>) -> tensor<10x8xf32>
  %choices = forge.reshape %back : (tensor<10x8xf32>) -> tensor<5x2x8xf32>
  %sum = forge.sum %choices over [1] : (tensor<5x2x8xf32>) -> tensor<5x8xf32>
  func.return %sum : tensor<5x8xf32>
}

// -----

// The hidden features have another use.
// CHECK-LABEL: func.func @hidden_is_returned(
// CHECK-NOT:     forge.moe
// CHECK:         func.return
func.func @hidden_is_returned(%x : tensor<5x8xf32>, %i : tensor<5x2xi64>, %w : tensor<5x2xf32>, %up : tensor<4x24x8xf32>, %down : tensor<4x8x12xf32>) -> (tensor<5x8xf32>, tensor<10x12xf32>) {
  %flat = forge.reshape %i : (tensor<5x2xi64>) -> tensor<10xi64>
  %ids, %order = forge.sort %flat dim 0 : (tensor<10xi64>) -> (tensor<10xi64>, tensor<10xi64>)
  %row = forge.floor_div %order, 2 : (tensor<10xi64>) -> tensor<10xi64>
  %rows = forge.index %x at %row dims [0] : (tensor<5x8xf32>, tensor<10xi64>) -> tensor<10x8xf32>
  %wflat = forge.reshape %w : (tensor<5x2xf32>) -> tensor<10xf32>
  %ws = forge.index %wflat at %order dims [0] : (tensor<10xf32>, tensor<10xi64>) -> tensor<10xf32>
  %float = forge.cast %ids : (tensor<10xi64>) -> tensor<10xf32>
  %histc = forge.aten "aten::histc"(%float, 4, 0, 3) : (tensor<10xf32>) -> tensor<4xf32>
  %counts = forge.cast %histc : (tensor<4xf32>) -> tensor<4xi32>
  %ends = forge.cumsum %counts dim 0 : (tensor<4xi32>) -> tensor<4xi32>
  %upt = forge.transpose %up [0, 2, 1] : (tensor<4x24x8xf32>) -> tensor<4x8x24xf32, #forge.tensor<[], strides = [192, 1, 8]>>
  %both = forge.grouped_matmul %rows, %upt ends %ends : (tensor<10x8xf32>, tensor<4x8x24xf32, #forge.tensor<[], strides = [192, 1, 8]>>, tensor<4xi32>) -> tensor<10x24xf32>
  %g = forge.slice %both dim 1 from 0 step 1 : (tensor<10x24xf32>) -> tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>
  %u = forge.slice %both dim 1 from 12 step 1 : (tensor<10x24xf32>) -> tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>
  %h = forge.glu %g, %u activation "silu" : (tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>, tensor<10x12xf32, #forge.tensor<[], strides = [24, 1]>>) -> tensor<10x12xf32>
  %downt = forge.transpose %down [0, 2, 1] : (tensor<4x8x12xf32>) -> tensor<4x12x8xf32, #forge.tensor<[], strides = [96, 1, 12]>>
  // expected-remark@+1 {{no mixture of experts was made: the result of forge.glu has other uses}}
  %y = forge.grouped_matmul %h, %downt ends %ends : (tensor<10x12xf32>, tensor<4x12x8xf32, #forge.tensor<[], strides = [96, 1, 12]>>, tensor<4xi32>) -> tensor<10x8xf32>
  %wcol = forge.reshape %ws : (tensor<10xf32>) -> tensor<10x1xf32>
  %weighted = forge.mul %y, %wcol : (tensor<10x8xf32>, tensor<10x1xf32>) -> tensor<10x8xf32>
  %numbers = forge.iota from 0 step 1 : tensor<10xi64>
  %anything = forge.aten "aten::empty_like"(%order) : (tensor<10xi64>) -> tensor<10xi64>
  %inverse = forge.index_put %anything, %numbers at %order dims [0] : (tensor<10xi64>, tensor<10xi64>, tensor<10xi64>) -> tensor<10xi64>
  %back = forge.index %weighted at %inverse dims [0] : (tensor<10x8xf32>, tensor<10xi64>) -> tensor<10x8xf32>
  %choices = forge.reshape %back : (tensor<10x8xf32>) -> tensor<5x2x8xf32>
  %sum = forge.sum %choices over [1] : (tensor<5x2x8xf32>) -> tensor<5x8xf32>
  func.return %sum, %h : tensor<5x8xf32>, tensor<10x12xf32>
}

// -----

// What stands between the products is no activation that the op has.
// CHECK-LABEL: func.func @tanh(
// CHECK-NOT:     forge.moe
// CHECK:         func.return
func.func @tanh(%x : tensor<5x8xf32>, %i : tensor<5x2xi64>, %w : tensor<5x2xf32>, %up : tensor<4x8x12xf32>, %down : tensor<4x8x12xf32>) -> tensor<5x8xf32> {
  %flat = forge.reshape %i : (tensor<5x2xi64>) -> tensor<10xi64>
  %ids, %order = forge.sort %flat dim 0 : (tensor<10xi64>) -> (tensor<10xi64>, tensor<10xi64>)
  %row = forge.floor_div %order, 2 : (tensor<10xi64>) -> tensor<10xi64>
  %rows = forge.index %x at %row dims [0] : (tensor<5x8xf32>, tensor<10xi64>) -> tensor<10x8xf32>
  %wflat = forge.reshape %w : (tensor<5x2xf32>) -> tensor<10xf32>
  %ws = forge.index %wflat at %order dims [0] : (tensor<10xf32>, tensor<10xi64>) -> tensor<10xf32>
  %float = forge.cast %ids : (tensor<10xi64>) -> tensor<10xf32>
  %histc = forge.aten "aten::histc"(%float, 4, 0, 3) : (tensor<10xf32>) -> tensor<4xf32>
  %counts = forge.cast %histc : (tensor<4xf32>) -> tensor<4xi32>
  %ends = forge.cumsum %counts dim 0 : (tensor<4xi32>) -> tensor<4xi32>
  %u = forge.grouped_matmul %rows, %up ends %ends : (tensor<10x8xf32>, tensor<4x8x12xf32>, tensor<4xi32>) -> tensor<10x12xf32>
  %h = forge.tanh %u : (tensor<10x12xf32>) -> tensor<10x12xf32>
  %downt = forge.transpose %down [0, 2, 1] : (tensor<4x8x12xf32>) -> tensor<4x12x8xf32, #forge.tensor<[], strides = [96, 1, 12]>>
  // expected-remark@+1 {{no mixture of experts was made: the rows come from forge.tanh, which is no activation or gated unit of a product with weights}}
  %y = forge.grouped_matmul %h, %downt ends %ends : (tensor<10x12xf32>, tensor<4x12x8xf32, #forge.tensor<[], strides = [96, 1, 12]>>, tensor<4xi32>) -> tensor<10x8xf32>
  %wcol = forge.reshape %ws : (tensor<10xf32>) -> tensor<10x1xf32>
  %weighted = forge.mul %y, %wcol : (tensor<10x8xf32>, tensor<10x1xf32>) -> tensor<10x8xf32>
  %numbers = forge.iota from 0 step 1 : tensor<10xi64>
  %anything = forge.aten "aten::empty_like"(%order) : (tensor<10xi64>) -> tensor<10xi64>
  %inverse = forge.index_put %anything, %numbers at %order dims [0] : (tensor<10xi64>, tensor<10xi64>, tensor<10xi64>) -> tensor<10xi64>
  %back = forge.index %weighted at %inverse dims [0] : (tensor<10x8xf32>, tensor<10xi64>) -> tensor<10x8xf32>
  %choices = forge.reshape %back : (tensor<10x8xf32>) -> tensor<5x2x8xf32>
  %sum = forge.sum %choices over [1] : (tensor<5x2x8xf32>) -> tensor<5x8xf32>
  func.return %sum : tensor<5x8xf32>
}
