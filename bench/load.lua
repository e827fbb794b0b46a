-- wrk's side of load.py: wrk -s load.lua URL -- KIND SIZE SEED SKU,SKU,…
-- SKUs and quantities go round; each order has its own key.

local kind, size, seed, skus, sent = "product", "1", "0", {}, 0

function init(arguments)
  kind, size, seed = arguments[1], arguments[2], arguments[3]
  for sku in string.gmatch(arguments[4], "[^,]+") do table.insert(skus, sku) end
end

function request()
  sent = sent + 1
  local sku = skus[sent % #skus + 1]
  if kind == "page" then
    return wrk.format("GET", "/v1/products?page_size=" .. size)
  elseif kind == "order" then
    local headers = {["Content-Type"] = "application/json", ["Idempotency-Key"] = seed .. "-" .. sent}
    return wrk.format("POST", "/v1/orders", headers, '{"lines": [{"sku": "' .. sku .. '", "quantity": 1}]}')
  end
  return wrk.format("GET", "/v1/products/" .. sku .. "?currency=EUR&quantity=" .. sent % 12 + 1)
end

function done(summary, latency, requests)
  local errors = summary.errors
  local failures = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format('{"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "failures": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99), failures))
end
