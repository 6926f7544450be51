-- The rest of `write.lua`: creates and deletes. The value of a delete is for how many writes it is remembered.
local in_topic = topic_bytes .. key
local outdated = {}
local function stand()
    step(standing and {'HSET', rows, stands, standing} or {'HDEL', rows, stands}, 'HSET', rows, stands, stands_now)
    -- Taken back also for a user who may not ZREM, which comes next.
    step({'ZREMRANGEBYLEX', changes, '[' .. place, '[' .. place}, 'ZADD', changes, 0, place)
end
if what == 'create' then
    if not exists then
        begin()
    end
    note(next_version, made)
    stand()
    if deleted then
        -- In another topic the row stays deleted.
        if sub(deleted, 9) == of_topic then
            place_before = topic_bytes .. sub(deleted, 1, 8) .. key
            step({'ZADD', changes, 0, place_before}, 'ZREM', changes, place_before)
            step({'ZADD', order, version, place_before}, 'ZREM', order, place_before)
        end
        step({'HSET', deletes, key, deleted}, 'HDEL', deletes, key)
    end
    step({'HDEL', rows, key}, 'HSET', rows, key, row)
    step({'ZREM', keys, key}, 'ZADD', keys, 0, key)
    step({'ZREM', topics, in_topic}, 'ZADD', topics, 0, in_topic)
else
    outdated = call('ZRANGEBYSCORE', order, '-inf', next_version - value - 1, 'LIMIT', 0, 10)
    note_in_any_case(next_version, made, function()
        step({'HSET', rows, key, packed}, 'HDEL', rows, key)
    end)
    stand()
    step({'ZADD', changes, 0, place_before}, 'ZREM', changes, place_before)
    step({'ZADD', keys, 0, key}, 'ZREM', keys, key)
    step({'ZADD', topics, 0, in_topic}, 'ZREM', topics, in_topic)
    step({'ZREM', order, place}, 'ZADD', order, next_version, place)
    step({'HDEL', deletes, key}, 'HSET', deletes, key, version_bytes .. of_topic)
end
if message then
    step(nil, 'PUBLISH', of_topic, message)
end
for _, forgotten in ipairs(refusal and {} or outdated) do
    local pcall = redis.pcall
    local version_at = 5 + unpack_bytes('>I4', forgotten)
    local field, which = '\255' .. sub(forgotten, 1, version_at - 1), sub(forgotten, version_at, version_at + 7)
    pcall('HSET', rows, field, sub(call('HGET', rows, field) or which, 1, 8) .. which)
    pcall('ZREM', changes, forgotten)
    pcall('ZREM', order, forgotten)
    local forgotten_key = sub(forgotten, version_at + 8)
    local remembered = call('HGET', deletes, forgotten_key)
    if remembered and sub(remembered, 1, 8) == which then
        pcall('HDEL', deletes, forgotten_key)
    end
end
return outcome(reply)
