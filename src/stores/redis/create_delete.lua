-- The rest of `write.lua`: creates and deletes.
if exists and not (call('HEXISTS', deletes, '\255') == 1 and call('ZSCORE', order, '\255')) then
    return {within and 6 or 7}
end
local in_topic = topic_bytes .. key
local oldest, outdated = next_version - remembered - 1, {}
local function stand()
    step({'HDEL', rows, note_at}, 'HSET', rows, note_at, note_of)
    step(standing and {'HSET', rows, stands, standing} or {'HDEL', rows, stands}, 'HSET', rows, stands, stands_now)
end
if what == 'create' then
    if not exists then
        begin()
    end
    note(next_version, made)
    if deleted then
        step({'HSET', deletes, key, deleted}, 'HDEL', deletes, key)
    end
    step({'HDEL', rows, key}, 'HSET', rows, key, row)
    stand()
    step({'ZREM', keys, key}, 'ZADD', keys, 0, key)
    step({'ZREM', topics, in_topic}, 'ZADD', topics, 0, in_topic)
else
    outdated = call('ZRANGEBYSCORE', order, '-inf', oldest, 'LIMIT', 0, 10)
    note_in_any_case(next_version, made, function()
        step({'HSET', rows, key, packed}, 'HDEL', rows, key)
    end)
    stand()
    -- Without an entry in `deletes` it means nothing, so it needs no undo, and stays when the row is created again.
    step(nil, 'ZADD', order, next_version, key)
    step({'ZADD', keys, 0, key}, 'ZREM', keys, key)
    step({'ZADD', topics, 0, in_topic}, 'ZREM', topics, in_topic)
    step({'HDEL', deletes, key}, 'HSET', deletes, key, version_bytes .. of_topic)
end
if message then
    step(nil, 'PUBLISH', of_topic, message)
end
if trim and not refusal then
    trim()
end
for _, forgotten in ipairs(refusal and {} or outdated) do
    local was = call('HGET', deletes, forgotten)
    if was and unpack_bytes('>I8', was) <= oldest then
        -- From now on the topic's changes up to it are unknown.
        local stands = '\255' .. pack('>I4', #was - 8) .. sub(was, 9)
        local standing = call('HGET', rows, stands)
        if standing and sub(was, 1, 8) ~= sub(standing, 9, 16) then
            local known_from = math.max((unpack_bytes('>I8', was)), (unpack_bytes('>I8', standing, 9)))
            redis.pcall('HSET', rows, stands, sub(standing, 1, 8) .. pack('>I8', known_from) .. sub(standing, 17))
        end
        redis.pcall('HDEL', deletes, forgotten)
    end
    -- That of the row that was deleted now has its new version.
    if forgotten ~= key then
        redis.pcall('ZREM', order, forgotten)
    end
end
return outcome(reply)
